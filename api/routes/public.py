"""The public routes: health, liveness, metrics."""

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.models import AliveAnswer, HealthAnswer
from api.openapi import problems, see, unhealthy
from api.parts import PartsOf

# A header has to stay short.
MOST_RIGHTS = 12

health = APIRouter(tags=["health"])
metrics = APIRouter(tags=["metrics"])

_SERIES = """\
# HELP ais_coordinator_state 1 for the current state, 0 for the others.
# TYPE ais_coordinator_state gauge
ais_coordinator_state{desk="main",state="running"} 1.0
"""


@health.get("/health", summary="Ask what is connected", responses={503: unhealthy(), **problems(500)})
@see("operations", "runbook")
async def read_health(parts: PartsOf) -> HealthAnswer:
    """Probes Temporal, the coordinator, its venue and the database, all at once, in 2 s at most. The database counts as
    connected if a row could be written to it, the venue if it was read in the last three cycles. `degraded` if one of them
    fails, or if the coordinator runs another mode or other symbols than this process is configured for. Redis alone does not
    degrade. 503 only if Temporal cannot be reached: then no command gets through. `X-AIS-Keys` says how current this process's
    keys are, `X-AIS-Missing-Rights` which rights the database's role lacks, and `X-AIS-Time` what time it is for this process.
    """
    found = await parts.health.check()
    status = 200 if found.temporal_connected else 503
    # Not the `Date`: many a proxy puts its own there.
    headers = {"X-AIS-Keys": parts.ring.freshness, "X-AIS-Time": datetime.now(UTC).isoformat(timespec="milliseconds")}
    if lacking := parts.health.missing_rights:
        headers["X-AIS-Missing-Rights"] = ", ".join(lacking[:MOST_RIGHTS]).encode("ascii", "replace").decode()
    return JSONResponse(found.model_dump(), status, headers=headers)  # type: ignore[return-value]


@health.get("/health/live", summary="Ask whether the process is alive", responses=problems(500))
@see("operations")
async def live() -> AliveAnswer:
    """For load balancers and containers. It probes nothing, so that a database outage never takes the kill switch out of
    rotation.
    """
    return AliveAnswer(status="alive")


@metrics.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"example": _SERIES}}},
        **problems(500),
    },
)
@see("metrics")
async def read_metrics(parts: PartsOf) -> Response:
    """The state of the desk, its commands and the HTTP requests of this process, for Prometheus. The coordinator is asked for its
    state at each scrape; if it does not answer, the state is absent. The worker has its own metrics, on its own ports.
    """
    # Of several processes the next scrape shall reach another one: on a connection that is kept, it would see the keys' age of
    # one of them alone.
    headers = {"Content-Type": CONTENT_TYPE_LATEST, "Connection": "close"}
    return Response(await parts.scrape.result(), headers=headers)
