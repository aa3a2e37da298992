"""One message to a real target: what came of it, in time, and without a word of the URL."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domain.notices import NoticeMessage
from notify import delivery
from notify.channels import Channel, channels_of
from notify.delivery import deliver, not_understood
from tests.deploy.dev_stack import ais, ais_here
from tests.notify.targets import PASSWORD, HttpTarget, MailTarget
from tests.processes import children_of_ours

MESSAGE = NoticeMessage("AIS main: KILLED", "2026-03-12T14:30:00+00:00  kill <b>applied</b>", True)


async def test_a_message_arrives_as_it_is(target: HttpTarget, mail: MailTarget) -> None:
    for channel in channels_of([("info", target.url), ("critical", mail.url)]):
        assert (await deliver(channel, MESSAGE)).error is None
    (got,) = target.got
    assert (got["title"], got["message"], got["type"]) == (MESSAGE.title, MESSAGE.body, "failure")
    assert "Subject: AIS main: KILLED" in mail.mails[0]


async def test_a_refusal_is_told_by_its_number(target: HttpTarget) -> None:
    target.how = 500
    assert (await deliver(target.channel(), MESSAGE)).error == "the target answered 500"


async def test_a_target_that_does_not_exist_is_an_error(target: HttpTarget) -> None:
    channel = Channel("x", False, "json://127.0.0.1:1/x")
    assert (await deliver(channel, MESSAGE)).error == "the target did not accept it"


async def test_a_target_that_dribbles_for_ever_is_ended_with_its_process(target: HttpTarget) -> None:
    target.how = "dribble"
    began = time.monotonic()
    done = await deliver(target.channel(), MESSAGE, seconds=8)
    assert done.error == "no answer within 8 s"
    assert target.asked == 1
    assert time.monotonic() - began < 12
    assert not children_of_ours("sender.py")


async def test_a_cancelled_message_leaves_no_process(target: HttpTarget) -> None:
    target.how = "hang"
    sending = asyncio.create_task(deliver(target.channel(), MESSAGE))
    while not target.asked:
        await asyncio.sleep(0.02)
    sending.cancel()
    await asyncio.wait({sending}, timeout=3)
    assert sending.cancelled()
    assert not children_of_ours("sender.py")


async def test_a_sender_has_a_time_of_its_own_to_get_ready(target: HttpTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "START_SECONDS", 0.01)
    done = await deliver(target.channel(), MESSAGE)
    assert done.error == "the sending process was not ready within 0.01 s"


def test_a_sender_whose_worker_is_gone_ends_by_itself(tmp_path: Path) -> None:
    script = tmp_path / "sender.py"
    script.write_text(delivery.SENDER.read_text().replace("LONGEST_SECONDS = 30", "LONGEST_SECONDS = 1"))
    # A worker that is stopped holds the pipe open and never writes.
    with subprocess.Popen([sys.executable, "-I", script], stdin=subprocess.PIPE) as process:
        assert process.wait(15) == -signal.SIGALRM


async def test_urls_that_apprise_does_not_understand_are_named_by_number(target: HttpTarget) -> None:
    channels = channels_of([("info", target.url), ("info", "nonsense://x"), ("critical", "discord://too-short")])
    assert await not_understood(channels) == [2, 3]


def test_a_channel_hides_its_url_and_keeps_its_name() -> None:
    url = f"json://anna:{PASSWORD}@host/"
    (channel,) = channels_of([("critical", url)])
    assert PASSWORD not in repr(channel)
    assert channel.name == channels_of([("critical", url)])[0].name
    assert channel.name != channels_of([("critical", url + "2")])[0].name
    assert channel.name.startswith("critical-json-")


def test_the_command_tries_each_channel_and_says_what_came_of_it(
    target: HttpTarget, mail: MailTarget, tmp_path: Path
) -> None:
    done = ais("notify", "test", "--desk", "night", cwd=tmp_path, AIS_NOTIFY_URLS=f"info={target.url}")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[::2] for line in done.stdout.splitlines()] == [["1", "sent"]]
    assert target.titles == ["AIS night: test"]
    target.how = 500
    done = ais_here("notify", "test", cwd=tmp_path, AIS_NOTIFY_URLS=f"critical={mail.url} info={target.url}")
    assert done.returncode == 1
    one, two = done.stdout.splitlines()
    assert (one.split("  ")[::2], two.split("  ")[0]) == (["1", "sent"], "2")
    assert two.endswith("not sent: the target answered 500")
    assert PASSWORD not in done.stdout + done.stderr
    assert len(mail.mails) == 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "AIS_NOTIFY_URLS is not set"),
        (f"json://a:{PASSWORD}@host/", "AIS_NOTIFY_URLS is set, but entry 1 is no level=URL"),
        (f"info=json://x urgent=json://a:{PASSWORD}@host/", "AIS_NOTIFY_URLS is set, but entry 2 is no level=URL"),
        (f"info=json://a:{PASSWORD}@h/ info=json://a:{PASSWORD}@h/", "an entry is listed twice"),
        (f"info=nonsense://{PASSWORD}", ""),
    ],
)
def test_a_wrong_setting_is_one_line_without_its_value(value: str, told: str, tmp_path: Path) -> None:
    done = ais_here("notify", "test", cwd=tmp_path, AIS_NOTIFY_URLS=value)
    assert done.returncode == 1
    assert PASSWORD not in done.stdout + done.stderr
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1
    assert told in done.stderr
