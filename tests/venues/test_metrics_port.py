"""The worker's own port: a neighbour that holds connections open takes neither threads nor descriptors from a kill."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from activities import metrics_port
from activities.metrics_port import MOST_CLIENTS, MetricsServer, serve_metrics


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    monkeypatch.setattr(metrics_port, "CLIENT_SECONDS", 0.5)
    monkeypatch.setattr(metrics_port._Handler, "timeout", 0.5)
    registry = CollectorRegistry()
    Counter("ais_scrapes", "A counter.", registry=registry).inc()
    try:
        served = serve_metrics(request.param, 0, registry)
    except OSError:
        pytest.skip("this machine has no IPv6")
    yield served
    served.shutdown()
    served.server_close()


def scraped(server: MetricsServer) -> bytes:
    """The metrics, as soon as there is room."""
    until = time.monotonic() + 180
    while True:
        asking = http.client.HTTPConnection(server.server_name, server.server_port)
        try:
            asking.request("GET", "/metrics")
            return asking.getresponse().read()
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < until
            time.sleep(0.05)
        finally:
            asking.close()


def test_it_serves_the_registry(server: MetricsServer) -> None:
    assert b"ais_scrapes_total 1.0" in scraped(server)


@pytest.mark.parametrize("trickle", [b"", b"GET /metrics HTTP/1.1\r\nX: "])
def test_connections_that_ask_nothing_are_few_and_end(server: MetricsServer, trickle: bytes) -> None:
    before, most = threading.active_count(), 0
    with contextlib.ExitStack() as held:
        for _ in range(4 * MOST_CLIENTS):
            client = held.enter_context(socket.create_connection((server.server_name, server.server_port), timeout=180))
            with contextlib.suppress(OSError):
                client.sendall(trickle)
            most = max(most, threading.active_count())
        # One thread for each, and one for the end of its time.
        assert most <= before + 2 * MOST_CLIENTS
        assert b"ais_scrapes_total 1.0" in scraped(server)


def test_clients_for_whom_no_thread_could_be_started_take_no_place_for_ever(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(range(2 * MOST_CLIENTS))

    class NoMoreThreads(threading.Timer):
        def start(self) -> None:
            if left:
                left.pop()
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Timer", NoMoreThreads)
    until = time.monotonic() + 180
    while left:
        socket.create_connection((server.server_name, server.server_port), timeout=180).close()
        assert time.monotonic() < until
    assert b"ais_scrapes_total 1.0" in scraped(server)
