"""Reports from the decision log."""

from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from api.auth import require_authentication
from api.models import DecisionAnswer, DecisionQuery
from api.openapi import answer, problems
from api.state import PartsOf
from domain.decisions import Decision
from storage.decisions import DecisionFilter

router = APIRouter(prefix="/reports", tags=["reports"], dependencies=[Depends(require_authentication)])

_FIELDS = set(DecisionAnswer.model_fields)
_LINK = {"Link": {"description": 'The next page: `<…>; rel="next"`.', "schema": {"type": "string"}}}


@router.get(
    "/decisions",
    responses={
        200: answer(list[DecisionAnswer], "Newest first.", _LINK),
        **problems(401, 422, 500, 503),
    },
)
async def decisions(parts: PartsOf, request: Request, query: Annotated[DecisionQuery, Query()]) -> JSONResponse:
    """DecisionLog entries of this desk, newest first, a page at a time."""
    rows, cursor = await parts.reports.page(DecisionFilter(**query.model_dump(), desk=parts.desk_name))
    headers = {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'} if cursor else None
    return JSONResponse([entry(row) for row in rows], headers=headers)


def entry(row: Decision) -> dict[str, Any]:
    """The nine keys of the contract; UTC written as an offset."""
    shown = row.model_dump(mode="json", include=_FIELDS)
    return {**shown, "timestamp": row.timestamp.astimezone(UTC).isoformat()}
