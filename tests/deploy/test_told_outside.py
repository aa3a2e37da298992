"""A desk that tells people and mirrors itself: while everything that listens hangs, a kill is as quick as ever, and all of it
is told afterwards."""

import signal
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
import redis

from tests.deploy.dev_stack import PATIENCE, DevStack, wait_until
from tests.notify.targets import PASSWORD, HttpTarget, serving

STATE = "ais:{main}:state"


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    target = HttpTarget()
    with serving(target):
        yield target


@pytest.mark.thorough
def test_a_kill_waits_for_no_listener_and_each_hears_of_it_later(stack: DevStack, target: HttpTarget) -> None:
    stack.settings = {"AIS_NOTIFY_URLS": f"critical={target.url}", "AIS_REDIS_URL": "redis://127.0.0.1:1/0"}
    stack.start("--redis", "--cycle-seconds", "1")
    stack.wait_for_line("ready")
    mirror = redis.Redis.from_url(stack.recorded["redis_url"], decode_responses=True, socket_timeout=5)
    wait_until(lambda: mirror.hget(STATE, "state") == "running", "the mirror")
    assert _health(stack)["redis_connected"] is True
    server = psutil.Process(stack.recorded["pids"]["Redis"])
    target.how = "hang"
    server.suspend()
    began = time.monotonic()
    assert _call(stack, "POST", "/control/kill-switch").is_success
    assert time.monotonic() - began < 3
    assert _health(stack)["redis_connected"] is False
    wait_until(lambda: target.asked > 0, "a message that hangs")
    server.resume()
    wait_until(lambda: mirror.hget(STATE, "state") == "killed", "the mirror")
    target.over.set()
    wait_until(lambda: "AIS main: KILLED" in target.titles, "the message")
    target.how = "hang"
    target.over.clear()
    assert stack.interrupt(signal.SIGINT) == 0
    assert not [log for log in (stack.folder / "logs").glob("*.log") if PASSWORD in log.read_text()]
    assert stack.processes() == []


def _health(stack: DevStack) -> dict[str, object]:
    found: dict[str, object] = _call(stack, "GET", "/health").json()
    return found


def _call(stack: DevStack, method: str, path: str) -> httpx.Response:
    key = (stack.folder / "api-key").read_text().strip()
    return httpx.request(
        method, stack.recorded["api_url"] + path, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE
    )
