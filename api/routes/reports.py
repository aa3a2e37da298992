"""Reports from the database: what the desk decided, sent, traded and has."""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.account import portfolio_answer
from api.auth import require_authentication
from api.errors import NoAccount
from api.models import DecisionAnswer, EntryAnswer, FillAnswer, InstructionAnswer, PortfolioAnswer
from api.openapi import answer, problems
from api.requests import DecisionQuery, InstructionQuery, NoQuery, PageQuery
from api.state import Parts, PartsOf
from domain.decisions import Decision
from domain.instructions import InstructionRow
from domain.status import ObservationStatus
from domain.values import Value
from storage.decisions import DecisionFilter
from storage.instructions import InstructionFilter
from storage.paging import PageFilter
from workflows.gateway import GatewayError

router = APIRouter(prefix="/reports", tags=["reports"], dependencies=[Depends(require_authentication)])

_LINK = {"Link": {"description": 'The next page: `<…>; rel="next"`.', "schema": {"type": "string"}}}
_PAGES = problems(401, 422, 500, 503)


def _page_of(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: answer(list[model], "Newest first.", _LINK), **_PAGES}  # type: ignore[valid-type]


@router.get("/decisions", responses=_page_of(DecisionAnswer))
async def decisions(parts: PartsOf, request: Request, query: Annotated[DecisionQuery, Query()]) -> JSONResponse:
    """DecisionLog entries of this desk, newest first, a page at a time."""
    rows, cursor = await parts.reports.page(DecisionFilter(**query.model_dump(), desk=parts.desk_name))
    return _page(request, [entry(row) for row in rows], cursor)


@router.get("/instructions", responses=_page_of(InstructionAnswer))
async def instructions(parts: PartsOf, request: Request, query: Annotated[InstructionQuery, Query()]) -> JSONResponse:
    """What was sent to the venue for this desk, and what became of it, newest first, a page at a time."""
    rows, cursor = await parts.reports.instructions(parts.desk_name, InstructionFilter(**query.model_dump()))
    return _page(request, [instruction(row) for row in rows], cursor)


@router.get("/fills", responses=_page_of(FillAnswer))
async def fills(parts: PartsOf, request: Request, query: Annotated[PageQuery, Query()]) -> JSONResponse:
    """What was executed for this desk, on the paper venue or on its real account, newest first, a page at a time."""
    rows, cursor = await parts.reports.fills(parts.desk_name, PageFilter(**query.model_dump()))
    return _page(request, _shown(rows, FillAnswer), cursor)


@router.get("/ledger", responses=_page_of(EntryAnswer))
async def ledger(parts: PartsOf, request: Request, query: Annotated[PageQuery, Query()]) -> JSONResponse:
    """Money of this desk's account that moved without a trade, such as funding, newest first, a page at a time."""
    rows, cursor = await parts.reports.ledger(parts.desk_name, PageFilter(**query.model_dump()))
    return _page(request, _shown(rows, EntryAnswer), cursor)


@router.get("/portfolio", responses=problems(401, 404, 422, 500, 503))
async def portfolio(parts: PartsOf, _: Annotated[NoQuery, Query()]) -> PortfolioAnswer:
    """This desk's account, computed again from all of its fills and ledger entries, and compared: with the paper venue's book, or
    with what the exchange says of a real account."""
    books = await parts.reports.books(parts.desk_name)
    if books is None:
        raise NoAccount(parts.desk_name, parts.mode)
    return portfolio_answer(books, await _observation(parts))


async def _observation(parts: Parts) -> ObservationStatus | None:
    try:
        return (await parts.desk.read()).status.observation
    except GatewayError:
        # Without prices of now it is still the account; `valued_at` says so.
        return None


def entry(row: Decision) -> dict[str, Any]:
    """The nine keys of the contract; UTC written as an offset."""
    shown = row.model_dump(mode="json", include=set(DecisionAnswer.model_fields))
    return {**shown, "timestamp": row.timestamp.astimezone(UTC).isoformat()}


def instruction(row: InstructionRow) -> dict[str, Any]:
    """An instruction with its order's fields beside its own."""
    order = row.order.model_dump(mode="json", exclude={"tool", "symbol", "time_in_force"}) if row.order else {}
    order |= {"venue_order_id": row.venue_order_id} if row.order else {}
    return row.model_dump(mode="json", exclude={"order", "desk", "venue_order_id"}) | order


def _shown(rows: Sequence[Value], model: type[BaseModel]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json", include=set(model.model_fields)) for row in rows]


def _page(request: Request, rows: list[dict[str, Any]], cursor: str | None) -> JSONResponse:
    headers = {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'} if cursor else None
    return JSONResponse(rows, headers=headers)
