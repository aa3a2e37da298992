"""What a worker does without at its start: whatever may pass by itself must not keep a kill waiting."""

import socket
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

import settings
import worker
from activities.instruments import Instruments


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens: the worker before this one, which is not quite gone."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


async def test_a_metrics_port_that_is_taken_stops_no_worker(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PORT_SECONDS", 0.3)
    config = settings.WorkerSettings.load().model_copy(update={"metrics_port": taken, "sdk_metrics_port": taken})
    with capture_logs() as logs:
        await worker._serve_metrics(config, Instruments("main"))
        await worker._runtime(config)
    told = [entry["event"] for entry in logs]
    assert sum(text.startswith("going on without") for text in told) == 2
