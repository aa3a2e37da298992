"""What a trace shows of a call to the MCP server, and that the server sees nothing of it."""

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from activities.metrics import WorkerMetrics
from domain.trading.instructions import Tool
from tests.venues.aster.fake_server import ACCOUNT, FakeServer
from tests.venues.aster.running import make_venue
from tracing import Traces


async def test_a_call_has_a_span_with_tool_symbol_and_outcome_and_no_account(fake: FakeServer, address: str) -> None:
    memory = InMemorySpanExporter()
    traces = Traces("test", "traced", SimpleSpanProcessor(memory))
    venue = make_venue(address, watch=WorkerMetrics("main", follow=traces.venue_called))
    try:
        with traces.interceptor.tracer.start_as_current_span("activity", kind=SpanKind.SERVER) as activity:
            await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
            fake.exchange.rest("BTCUSDT", status="CANCELED")
            fake.faults.errors = {"cancel_all_orders": 503}
            # Confirmed by reading back: no order is open.
            await venue.cancel_all(Tool.CANCEL_ALL_ORDERS, "BTCUSDT")
    finally:
        await venue.close()
    spans = memory.get_finished_spans()
    good, *_, bad = [span for span in spans if span.name == "venue cancel_all_orders"]
    assert good.attributes == {"ais.tool": "cancel_all_orders", "ais.symbol": "BTCUSDT", "ais.outcome": "ok"}
    assert bad.attributes is not None
    assert bad.attributes["ais.outcome"] == "VenueUnavailable"
    assert not bad.status.is_ok
    # The MCP client's own spans, which hold the server's texts, are not among them.
    assert {span.name.split()[0] for span in spans} == {"venue", "activity"}
    ids = {span.parent.span_id for span in spans if span.parent}
    assert ids == {activity.get_span_context().span_id}
    assert ACCOUNT not in "".join(span.to_json() for span in spans)
    assert not any("traceparent" in str(meta) for meta in fake.metas)
    assert fake.metas, "no request was looked at"
