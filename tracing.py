"""Traces by OpenTelemetry: of one HTTP call, one command or one activity, down to the venue's calls and the SQL statements.

Nothing here may hold up or fail what it follows. Spans go into a bounded queue that drops the oldest, and a thread of its own
delivers them: a receiver that hangs, is away or refuses costs spans, nothing else. Whatever a caller sends in a header is
checked before it is taken: a header that cannot be read would otherwise fail a kill's workflow task for ever.

Only a process whose `AIS_TRACES_URL` is set imports this module: it needs the packages of the extra `traces`.
"""

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    HandleQueryInput,
    HandleSignalInput,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from activities.calls import CancelCall, CancelManyCall, OrderCall, RecordCall
from domain.health.troubles import KnownTroubles

QUEUE_SPANS = 2_048
EXPORT_SECONDS = 5.0
CLOSE_SECONDS = 1.0
EVERY_MILLISECONDS = 1_000
ATTRIBUTE_CHARS = 1_000
# Of one run: how many commands' traces are remembered, and how many signals of one workflow task get a span of their own.
COMMANDS_REMEMBERED = 256
SIGNALS_SHOWN = 64

# The name that temporalio.contrib.opentelemetry gives it.
HEADER = "_tracer-data"
HEADER_BYTES = 1_000
_EXTERN = "ais_span"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-9a-f]")
_W3C = TraceContextTextMapPropagator()

log = structlog.get_logger("traces")


class Traces:
    """The traces of one process. Build it, hand its parts to what they follow, and close it last."""

    def __init__(self, process: str, desk: str, processor: SpanProcessor) -> None:
        # Our own provider, never the global one: the MCP client would add spans with the venue's error texts. And no global
        # propagator: with one, the MCP client would change what is sent to the venue.
        propagate.set_global_textmap(CompositePropagator([]))
        provider = TracerProvider(
            sampler=ParentBased(_RootSampler()),
            resource=Resource.create({"service.name": f"ais-{process}", "ais.desk": desk}),
            shutdown_on_exit=False,
            # No events: a recorded exception contains a traceback, with texts of PostgreSQL that contain values.
            span_limits=SpanLimits(max_events=0, max_attribute_length=ATTRIBUTE_CHARS),
        )
        provider.add_span_processor(processor)
        self._provider = provider
        self._tracer = provider.get_tracer("ais")
        self.interceptor = CommandInterceptor(self._tracer)

    @contextmanager
    def calling(self, what: str, command_id: object = None) -> Iterator[Mapping[str, Payload]]:
        """Makes a span around a call to the coordinator, and yields the headers with which the worker continues the trace."""
        with _span_around(self._tracer, what, None, SpanKind.CLIENT) as span:
            if command_id and span.is_recording():
                span.set_attribute("ais.command_id", str(command_id))
            traceparent = _traceparent(span)
            carrier = {"traceparent": traceparent or "", "command_id": str(command_id or "")}
            yield {HEADER: _payload(carrier)} if traceparent else {}

    def venue_called(self, tool: str, seconds: float, symbol: str | None, outcome: str) -> None:
        """A span of a venue call that has just ended."""
        now = time.time_ns()
        attributes = {"ais.tool": tool, "ais.outcome": outcome} | ({"ais.symbol": symbol} if symbol else {})
        began = now - int(seconds * 1e9)
        span = self._tracer.start_span(f"venue {tool}", kind=SpanKind.CLIENT, attributes=attributes, start_time=began)
        if outcome != "ok":
            span.set_status(StatusCode.ERROR)
        span.end(now)

    def http(self, app: ASGIApp, follows: Callable[[Scope], bool]) -> "HttpTraces":
        """The middleware for the API."""
        return HttpTraces(app, self, follows)

    @contextmanager
    def statements(self) -> Iterator[None]:
        """Follows the SQL statements of this process for as long as the block runs."""
        listeners = (
            ("before_cursor_execute", self._before_statement),
            ("after_cursor_execute", _after_statement),
            ("handle_error", _statement_failed),
        )
        for name, listener in listeners:
            event.listen(Engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners:
                event.remove(Engine, name, listener)

    def _before_statement(self, conn: Any, cursor: Any, statement: str, values: Any, context: Any, many: Any) -> None:
        if not trace.get_current_span().is_recording():
            return
        # Only the statement's text: it contains no values, which are bound separately (`values`).
        attributes = {"db.system.name": "postgresql", "db.query.text": statement}
        name = f"SQL {statement.split(None, 1)[0].upper()}" if statement.strip() else "SQL"
        context.ais_span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """The span of one HTTP request, below the caller's own if it sent a `traceparent`."""
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        parent = _context(given.decode("ascii", "replace"))
        with _span_around(self._tracer, f"{scope['method']}", parent, SpanKind.SERVER) as span:
            yield span

    async def close(self) -> None:
        """Delivers what is left, in bounded time."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


def open_traces(url: str, process: str, desk: str) -> Traces:
    """Traces that go to an OTLP/HTTP receiver. Connects to nothing yet."""
    # Its loggers repeat what the receiver answers, once a failure; those below it, at the level DEBUG, the whole address, which
    # may hold a key. `_Delivery` says what an operator needs.
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    exporter = _Delivery(OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS))
    processor = BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS, schedule_delay_millis=EVERY_MILLISECONDS)
    return Traces(process, desk, processor)


class _Delivery(SpanExporter):
    """Says once that spans are not delivered, and once that they are again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._troubles = KnownTroubles()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            # Its text may hold the URL, and that a password.
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if self._troubles.begin():
                log.warning("traces are not delivered and are dropped; check AIS_TRACES_URL and its receiver")
        elif self._troubles.end():
            log.info("traces are delivered again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _RootSampler(Sampler):
    """Lets only an HTTP call or an activity begin a trace.

    A query, a statement or a venue call outside of these belongs to a health probe, which anybody may request, or to the books.
    """

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        *rest: Any,
        **more: Any,
    ) -> SamplingResult:
        # The span gets the attributes of this result.
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kind is SpanKind.SERVER else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "RootSampler"


# By default OpenTelemetry writes an exception's whole text into the span, and PostgreSQL's texts contain statements and values.
_NO_TEXTS: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}


@contextmanager
def _span_around(tracer: Tracer, name: str, parent: Any, kind: SpanKind) -> Iterator[Span]:
    """A span around the block. If the block raises, the span gets the exception's class, but not its text."""
    with tracer.start_as_current_span(name, parent, kind, **_NO_TEXTS) as span:
        try:
            yield span
        except Exception as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise


# --- HTTP ------------------------------------------------------------------------------------------------------------


class HttpTraces:
    """A span for each request that `follows` accepts. It takes no header, body or query string: a key may stand in them."""

    def __init__(self, app: ASGIApp, traces: Traces, follows: Callable[[Scope], bool]) -> None:
        self._app = app
        self._traces = traces
        self._follows = follows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._follows(scope):
            await self._app(scope, receive, send)
            return
        with self._traces.request(scope) as span:

            async def note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message["status"])
                await send(message)

            await self._app(scope, receive, note)


def _describe(span: Span, scope: Scope, status: int) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.response.status_code", status)
    if command_id := scope.get("state", {}).get("command_id"):
        span.set_attribute("ais.command_id", str(command_id))
    if status >= 500:
        span.set_status(StatusCode.ERROR)


# --- SQL -------------------------------------------------------------------------------------------------------------


def _after_statement(conn: Any, cursor: Any, statement: str, values: Any, context: Any, many: Any) -> None:
    if span := getattr(context, "ais_span", None):
        span.end()


def _statement_failed(failure: Any) -> None:
    if span := getattr(failure.execution_context, "ais_span", None):
        # The class alone: PostgreSQL's text names values.
        span.set_status(StatusCode.ERROR, type(failure.original_exception).__name__)
        span.end()


# --- Temporal --------------------------------------------------------------------------------------------------------


class CommandInterceptor(TracingInterceptor):
    """The SDK's interceptor, changed in three ways.

    The SDK's makes activities part of the trace that started the run, which for a desk may be years old; here each belongs to the
    trace of its command. The SDK's trusts the headers of signals: one that cannot be decoded fails the workflow task, and every
    later one. And the SDK's records the texts of errors.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Temporal's way into an activity."""
        return _ActivityInbound(next, self.tracer)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[Any]:
        """Temporal's way into the workflow."""
        input.unsafe_extern_functions[_EXTERN] = self._workflow_span
        return _WorkflowInbound

    def _workflow_span(self, name: str, traceparent: str, kind: SpanKind) -> str:
        """A span without a duration, made outside of the sandbox. Later spans of the command are its children."""
        span = self.tracer.start_span(name, _context(traceparent), kind)
        span.end()
        return _traceparent(span) or traceparent


class _ActivityInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, tracer: Tracer) -> None:
        super().__init__(next)
        self._tracer = tracer

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info, found = activity.info(), _read(input.headers)
        name, parent = f"RunActivity:{info.activity_type}", _context(found[0]) if found else None
        attributes: dict[str, AttributeValue] = {
            "ais.attempt": info.attempt,
            "temporalWorkflowID": info.workflow_id or "",
        }
        with self._tracer.start_as_current_span(name, parent, SpanKind.SERVER, attributes, **_NO_TEXTS) as span:
            try:
                return await super().execute_activity(input)
            except BaseException as error:
                span.set_status(StatusCode.ERROR, getattr(error, "type", None) or type(error).__name__)
                raise


class _WorkflowInbound(WorkflowInboundInterceptor):
    """Remembers the trace of each command of this run, no longer than the run lasts. Traces change no workflow command: the same
    history replays with and without them.
    """

    def __init__(self, next: WorkflowInboundInterceptor) -> None:
        super().__init__(next)
        self._traces: dict[str, str] = {}
        self._task: datetime | None = None
        self._shown = 0

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound, self))

    async def handle_signal(self, input: HandleSignalInput) -> None:
        if found := _read(input.headers):
            traceparent, command_id = found
            if self._task != workflow.now():
                self._task, self._shown = workflow.now(), 0
            self._shown += 1
            if self._shown <= SIGNALS_SHOWN:
                traceparent = self.span(f"HandleSignal:{input.signal}", traceparent, SpanKind.SERVER)
            self._traces[command_id] = traceparent
            if len(self._traces) > COMMANDS_REMEMBERED:
                del self._traces[next(iter(self._traces))]
        await super().handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        if found := _read(input.headers):
            _make_span(f"HandleQuery:{input.query}", found[0], SpanKind.SERVER)
        return await super().handle_query(input)

    def of(self, call: object) -> str | None:
        """The trace of the command that an activity is for."""
        return next((self._traces[id_] for id_ in _commands_of(call) if id_ in self._traces), None)

    def span(self, name: str, traceparent: str, kind: SpanKind) -> str:
        """A span, once: a replay makes none."""
        return traceparent if workflow.unsafe.is_replaying() else _make_span(name, traceparent, kind)


class _WorkflowOutbound(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, run: _WorkflowInbound) -> None:
        super().__init__(next)
        self._run = run

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        if input.args and (traceparent := self._run.of(input.args[0])):
            child = self._run.span(f"StartActivity:{input.activity}", traceparent, SpanKind.CLIENT)
            input.headers = {**input.headers, HEADER: _payload({"traceparent": child})}
        return super().start_activity(input)


def _make_span(name: str, traceparent: str, kind: SpanKind) -> str:
    make: Any = workflow.extern_functions()[_EXTERN]
    return str(make(name, traceparent, kind))


def _commands_of(call: object) -> Iterator[str]:
    """The ids of the commands that an activity carries out."""
    match call:
        case CancelManyCall():
            for cancel in call.cancels:
                yield from _commands_of(cancel)
        case CancelCall():
            # What instruction_id puts together: command, round, tool and symbol.
            yield from (id_.rsplit(":", 3)[0] for id_ in call.instruction_ids)
        case OrderCall():
            yield call.order.command_id
        case RecordCall():
            yield from (row.command_id for row in call.batch.instructions)
            yield from (row.command_id for row in call.batch.decisions if row.command_id)


def _payload(carrier: Mapping[str, str]) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(carrier).encode())


def _read(headers: Mapping[str, Payload]) -> tuple[str, str] | None:
    """The trace and the command of a header; None if it holds no such thing. Never raises."""
    payload = headers.get(HEADER)
    if payload is None or len(payload.data) > HEADER_BYTES:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        carrier = json.loads(payload.data)
        traceparent = carrier.get("traceparent") if isinstance(carrier, dict) else None
        if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent):
            return traceparent, str(carrier.get("command_id"))
    return None


def _context(traceparent: str) -> Any:
    """The context of a span elsewhere; None if there is none."""
    return _W3C.extract({"traceparent": traceparent}) if _TRACEPARENT.fullmatch(traceparent) else None


def _traceparent(span: Span) -> str | None:
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
