"""What anybody may ask: health, liveness, metrics."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.models import AliveAnswer, HealthAnswer
from api.openapi import answer, problems
from api.state import PartsOf

router = APIRouter(tags=["public"])


@router.get("/health", responses={503: answer(HealthAnswer, "Temporal cannot be reached."), **problems(500)})
async def health(parts: PartsOf) -> HealthAnswer:
    """Probes Temporal, the coordinator, its venue and the database."""
    found = await parts.health.check()
    status = 200 if found.temporal_connected else 503
    return JSONResponse(found.model_dump(), status)  # type: ignore[return-value]


@router.get("/health/live", responses=problems(500))
async def live() -> AliveAnswer:
    """Asks nothing of anybody: a lost database must never take the kill switch out of rotation."""
    return AliveAnswer(status="alive")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **problems(500)})
async def metrics(parts: PartsOf) -> Response:
    """Prometheus text."""
    status = await parts.health.status()
    text = parts.instruments.scrape(status.state if status else None)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
