"""A desk whose traces are followed: one trace from the HTTP call to the venue, and a receiver that holds up nothing."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHistory
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ExecuteActivityInput, Replayer

from api.app import _is_traced, create_app
from api.auth import _HOLDER
from settings import DeskSettings
from storage.database import Database
from tests.api.world import AUTHORIZED, FakeGateway, FakeReports, make_settings
from tests.replay.builders import liquid, made_bars, written
from tests.workflows.histories import FOLDER
from tests.workflows.test_metrics import PaperDesk
from tests.workflows.world import Desk, World, running_desk
from tracing import CLOSE_SECONDS, HEADER, SIGNALS_SHOWN, Traces, open_traces
from workflows import names
from workflows.converter import DATA_CONVERTER
from workflows.coordinator import Coordinator
from workflows.gateway import DeskGateway

HISTORIES = sorted(FOLDER.glob("*.json"))


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(memory: InMemorySpanExporter) -> Traces:
    return Traces("test", "traced", SimpleSpanProcessor(memory))


def followed(client: Client, traces: Traces) -> Client:
    """The same connection, with the interceptor that a worker takes over from its client."""
    config = client.config()
    config["interceptors"] = [traces.interceptor]
    return Client(**config)


@asynccontextmanager
async def api(traces: Traces, gateway: Any, desk: str = "main") -> AsyncIterator[httpx.AsyncClient]:
    settings = replace(make_settings(ack_timeout=30.0), desk=DeskSettings(desk=desk, symbols=("BTCUSDT",)))
    app = create_app(settings, gateway, FakeReports(), traces=traces)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api", headers=AUTHORIZED) as client,
    ):
        yield client


def below(spans: list[ReadableSpan], root: str) -> list[ReadableSpan]:
    """Every span of the trace that the named one began."""
    (found,) = [span for span in spans if span.name == root and span.parent is None]
    return [
        span for span in spans if span.context and found.context and span.context.trace_id == found.context.trace_id
    ]


def chain(spans: list[ReadableSpan], name: str) -> list[str]:
    """The names from the root of a trace down to the first span of this name."""
    by_id = {span.context.span_id: span for span in spans if span.context}
    span, names = next(span for span in spans if span.name == name), [name]
    while span.parent:
        span = by_id[span.parent.span_id]
        names.insert(0, span.name)
    return names


async def test_one_trace_leads_from_the_kill_over_http_to_the_venue_and_the_database(
    temporal: Client, database_url: str, tmp_path: Path, memory: InMemorySpanExporter, traces: Traces
) -> None:
    bars = written(tmp_path / "bars.csv", liquid(made_bars(2_000)))
    client = followed(temporal, traces)
    desk = PaperDesk(client, database_url, bars, "traced", follow=traces.venue_called)
    with closing(desk.database):
        async with desk.running(), api(traces, DeskGateway(client, "traced", 60, traces), "traced") as http:
            await desk.until("ais_orders_filled_total{")
            assert (await http.post("/control/kill-switch", headers={"Idempotency-Key": "k1"})).status_code == 200
            await desk.until('ais_kill_to_quiet_seconds_count{desk="traced"} 1.0')
            await desk.until('ais_kill_switch_triggers_total{desk="traced",source="operator"} 1.0')
            # The span of the activity that wrote it ends after what it wrote shows.
            await until(lambda: named(memory, "RunActivity:record"))
            spans = list(memory.get_finished_spans())
            history = await client.get_workflow_handle(names.workflow_id("traced")).fetch_history()
    # Recorded with traces, it replays with them and without.
    for interceptors in ([], [traces.interceptor]):
        replayer = Replayer(workflows=[Coordinator], data_converter=DATA_CONVERTER, interceptors=interceptors)
        await replayer.replay_workflow(history)
    kill = below(spans, "POST /control/kill-switch")
    signal = ["POST /control/kill-switch", "SignalWorkflow:kill", "HandleSignal:kill"]
    assert chain(kill, "venue cancel_all_orders") == [
        *signal, "StartActivity:cancel_many", "RunActivity:cancel_many", "venue cancel_all_orders",
    ]  # fmt: skip
    venue = next(span for span in kill if span.name == "venue cancel_all_orders")
    assert venue.attributes == {"ais.tool": "cancel_all_orders", "ais.symbol": "BTCUSDT", "ais.outcome": "ok"}
    assert {"QueryWorkflow:outcomes", "HandleQuery:outcomes"} <= {span.name for span in kill}
    root = next(span for span in kill if span.parent is None)
    assert root.attributes is not None
    assert (root.attributes["ais.command_id"], root.attributes["http.response.status_code"]) == ("k1", 200)
    assert any(chain(kill, span.name)[-2].startswith("RunActivity") for span in kill if span.name.startswith("SQL"))
    # A cycle's activities each have a trace of their own: none of them follows what once started the desk.
    assert len(below_all(spans, "RunActivity:observe")) > 1
    decide = next(span for span in spans if span.name == "RunActivity:decide")
    assert decide.attributes == {"ais.attempt": 1, "temporalWorkflowID": "coordinator-traced"}
    assert all(span.name.startswith(("POST", "RunActivity")) for span in spans if span.parent is None)
    assert "100000" not in "".join(span.to_json() for span in spans), "a balance is bound, and no text of a statement"


def below_all(spans: list[ReadableSpan], name: str) -> set[int]:
    return {span.context.trace_id for span in spans if span.name == name and span.context}


def named(memory: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in memory.get_finished_spans() if span.name == name]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.02)


# --- who makes spans --------------------------------------------------------------------------------------------------


async def test_who_does_not_know_the_key_makes_no_span(memory: InMemorySpanExporter, traces: Traces) -> None:
    async with api(traces, FakeGateway()) as client:
        for path in ("/control/kill-switch", "/control/nothing"):
            response = await client.post(path, headers={"Authorization": "Bearer wrong"})
            assert response.status_code == 401
        for path in ("/health", "/health/live", "/metrics", "/docs"):
            await client.get(path, headers={"Authorization": ""})
        assert not memory.get_finished_spans()
        assert (await client.get("/control/status")).status_code == 200
    assert [span.name for span in memory.get_finished_spans()] == ["GET /control/status"]


async def test_a_callers_trace_goes_on_and_no_junk_in_its_place_hurts_a_kill(
    memory: InMemorySpanExporter, traces: Traces
) -> None:
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with api(traces, FakeGateway()) as client:
        for given in (theirs, "\xff", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5_000, ""):
            headers = {b"traceparent": given.encode("latin-1"), b"tracestate": b"\xff=\x00"}
            response = await client.post("/control/kill-switch?reason=key%ff", headers=headers)
            assert response.status_code == 200
    first, *others = [span for span in memory.get_finished_spans() if span.kind is SpanKind.SERVER]
    assert first.context is not None
    assert f"{first.context.trace_id:032x}" == theirs[3:35]
    assert [span.parent for span in others] == [None] * 4


async def test_a_header_of_a_signal_that_cannot_be_read_hurts_no_desk(temporal: Client, traces: Traces) -> None:
    async with running_desk(followed(temporal, traces)) as desk:
        for data in (b"\xff", b"[]", b"[" * 900, b'{"traceparent": 7}', b'{"traceparent": "00-1"}', b'"' * 5_000):
            await signal_with(desk.client, desk.handle.id, Payload(metadata={"encoding": b"json/plain"}, data=data))
        await signal_with(desk.client, desk.handle.id, Payload(metadata={"encoding": b"?"}, data=b""), "kill")
        status = await desk.until(lambda status: status.kill is not None and status.kill.verified_at)
        assert status.state == "killed"


async def signal_with(client: Client, workflow_id: str, header: Payload, name: str = "pause") -> None:
    gateway = DeskGateway(client, workflow_id.removeprefix("coordinator-"), 60, _Forger(header))
    await gateway.signal(name, {"command_id": f"c{time.monotonic_ns()}"}, 60)


class _Forger:
    """Puts what it likes into the header of a signal."""

    def __init__(self, header: Payload) -> None:
        self._header = header

    def calling(self, what: str, command_id: object = None) -> AbstractContextManager[Mapping[str, Payload]]:
        return nullcontext({HEADER: self._header})


def test_a_stream_is_not_traced() -> None:
    scope = {"type": "http", _HOLDER: object()}
    assert not _is_traced(scope | {"path": "/control/events"})
    assert _is_traced(scope | {"path": "/control/status"})


async def test_a_failed_statement_shows_no_value(
    database_url: str, traces: Traces, memory: InMemorySpanExporter
) -> None:
    database = Database(database_url, application_name="ais-traces-test")
    statement = text("INSERT INTO desks (desk, mode) VALUES (:desk, CAST(:mode AS integer))")

    def work(connection: Connection) -> None:
        connection.execute(statement, {"desk": "secret-desk", "mode": "secret-mode"})

    with closing(database), traces.statements():
        # Outside of anything that is traced: no span.
        assert await database.ping()
        with (
            traces.interceptor.tracer.start_as_current_span("activity", kind=SpanKind.SERVER),
            pytest.raises(DBAPIError),
        ):
            await database.run(work)
    inner, outer = memory.get_finished_spans()
    assert inner.parent is not None
    assert (inner.name, inner.parent.span_id) == ("SQL INSERT", outer.context and outer.context.span_id)
    assert inner.status.description == "InvalidTextRepresentation"
    assert "secret" not in inner.to_json() + outer.to_json()


SECRET = "(psycopg.Error) duplicate key (desk)=(s3cret) [SQL: INSERT INTO desks] [parameters: {'desk': 's3cret'}]"


async def _breaks(*_: Any) -> Any:
    raise RuntimeError(SECRET)


async def _request(traces: Traces, database: Database) -> None:
    scope = {"type": "http", "method": "POST", "path": "/control/kill-switch", "headers": []}
    await traces.http(_breaks, lambda _: True)(scope, _breaks, _breaks)


async def _call(traces: Traces, database: Database) -> None:
    with traces.calling("SignalWorkflow:kill", "k1"):
        await _breaks()


@activity.defn(name="record")
async def _record() -> None:
    await _breaks()


async def _activity(traces: Traces, database: Database) -> None:
    inner: Any = SimpleNamespace(execute_activity=_breaks)
    call = ExecuteActivityInput(fn=_record, args=[], executor=None, headers={})
    await ActivityEnvironment().run(traces.interceptor.intercept_activity(inner).execute_activity, call)


async def _statement(traces: Traces, database: Database) -> None:
    statement = text("SELECT CAST(:value AS integer)")
    with traces.statements(), traces.calling("QueryWorkflow:outcomes"):
        await database.run(lambda connection: connection.execute(statement, {"value": "s3cret"}))


async def _venue(traces: Traces, database: Database) -> None:
    with traces.calling("venue"):
        traces.venue_called("place_order", 0.1, "BTCUSDT", "rejected")
        await _breaks()


@pytest.mark.parametrize(
    ("what", "spans"),
    [
        (_request, {"outer": None, "POST": "RuntimeError"}),
        (_call, {"outer": None, "SignalWorkflow:kill": "RuntimeError"}),
        (_activity, {"outer": None, "RunActivity:unknown": "RuntimeError"}),
        (_statement, {"outer": None, "QueryWorkflow:outcomes": "DataError", "SQL SELECT": "InvalidTextRepresentation"}),
        (_venue, {"outer": None, "venue": "RuntimeError", "venue place_order": None}),
    ],
)
async def test_an_exception_leaves_its_class_in_a_span_and_none_of_its_text(
    what: Any, spans: dict[str, str | None], traces: Traces, memory: InMemorySpanExporter, database_url: str
) -> None:
    with (
        closing(Database(database_url, application_name="ais-traces-test")) as database,
        # A call to the coordinator begins no trace.
        traces.interceptor.tracer.start_as_current_span("outer", kind=SpanKind.SERVER),
        suppress(Exception),
    ):
        await what(traces, database)
    found = memory.get_finished_spans()
    assert {span.name: span.status.description for span in found} == spans
    exported = "".join(f"{span.to_json()}{encode_spans([span])}" for span in found)
    assert "s3cret" not in exported
    assert "INSERT" not in exported


async def test_a_flood_of_traced_signals_costs_little_more_than_one_without(
    temporal: Client, traces: Traces, memory: InMemorySpanExporter
) -> None:
    """Of one workflow task, no more than some signals have a span."""
    client = followed(temporal, traces)
    desk = Desk(client, World())
    await desk.start()
    gateway = DeskGateway(client, desk.desk, 60, traces)
    with traces.interceptor.tracer.start_as_current_span("flood", kind=SpanKind.SERVER):
        await asyncio.gather(*(gateway.signal("pause", {"command_id": f"c{n}"}, 60) for n in range(100)))
    async with desk.worker():
        await desk.until(lambda status: status.state == "paused")
        await desk.handle.terminate("the test is over")
    assert len(named(memory, "SignalWorkflow:pause")) == 100
    assert 0 < len(named(memory, "HandleSignal:pause")) <= SIGNALS_SHOWN


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", HISTORIES[::12], ids=lambda file: file.stem)
async def test_a_history_that_knows_of_no_traces_replays_with_them_and_makes_no_span(
    file: Path, traces: Traces, memory: InMemorySpanExporter
) -> None:
    history = WorkflowHistory.from_json(f"coordinator-{file.stem}", file.read_text())
    replayer = Replayer(workflows=[Coordinator], data_converter=DATA_CONVERTER, interceptors=[traces.interceptor])
    await replayer.replay_workflow(history)
    assert not memory.get_finished_spans()


# --- a receiver that is no good ---------------------------------------------------------------------------------------


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.asked.set()  # type: ignore[attr-defined]
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def refusing() -> Iterator[tuple[str, threading.Event]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        server.asked = asked = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:hunter2@127.0.0.1:{server.server_port}/v1/traces", asked
        server.shutdown()


@pytest.fixture
def hanging() -> Iterator[str]:
    """Accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/traces"


async def killed(traces: Traces) -> tuple[int, Any, float]:
    """What a kill answers, and how long it takes with a queue that is full."""
    async with api(traces, FakeGateway()) as client:
        for number in range(3_000):
            with traces.interceptor.tracer.start_as_current_span(f"{number}", kind=SpanKind.SERVER):
                pass
        began = time.monotonic()
        response = await client.post("/control/kill-switch", json={"reason": "r"})
        took = time.monotonic() - began
        began = time.monotonic()
    assert time.monotonic() - began < CLOSE_SECONDS + 3, "the process stops in bounded time"
    return response.status_code, response.json(), took


async def test_a_receiver_that_is_away_hangs_or_refuses_changes_no_answer_of_a_kill(
    hanging: str,
    refusing: tuple[str, threading.Event],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    traces: Traces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracing.CLOSE_SECONDS", 0.5)
    expected = await killed(traces)
    for url in (hanging, refusing[0], "http://user:hunter2@127.0.0.1:1/v1/traces"):
        status, body, took = await killed(open_traces(url, "api", "main"))
        assert (status, body) == expected[:2]
        assert took < 2, url
    assert refusing[1].wait(10)
    # Other tests of the same process may have sent the log to the standard library.
    told = "".join((*capfd.readouterr(), caplog.text))
    assert "traces are not delivered" in told
    assert "hunter2" not in told
