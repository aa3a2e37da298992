"""Reports from the database: what the desk decided, sent and traded, and its account."""

import json
from collections.abc import Iterable
from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api.account import portfolio_answer
from api.auth import GuardedRoute, needs, require_authentication
from api.errors import NoAccount
from api.models import DecisionAnswer, EntryAnswer, EquityAnswer, FillAnswer, InstructionAnswer, PortfolioAnswer
from api.openapi import FILTERING, READING, READING_BOOKS, Examples, Responses, answer, problem, problems, see
from api.parts import PartsOf
from api.requests import DecisionQuery, EquityQuery, InstructionQuery, NoQuery, PageQuery
from api.rows import instruction, shown
from domain.desk.states import Mode
from domain.keys import Role
from storage.decisions import DecisionFilter
from storage.equity import CurveFilter, EquityPoint
from storage.instructions import InstructionFilter
from storage.paging import PageFilter
from workflows.gateway import GatewayError

router = APIRouter(
    prefix="/reports", tags=["reports"], dependencies=[Depends(require_authentication)], route_class=GuardedRoute
)

_LINK = {"Link": {"description": 'The next page: `<…>; rel="next"`.', "schema": {"type": "string"}}}
_UNREAD = "The database cannot be read, or the account's books are not known yet; `detail` says which."
_FILTERED = {422: problem(422, FILTERING), **problems(401, 403, 500)}


def _page_of(model: type[BaseModel], unread: Examples = READING) -> Responses:
    found = answer(list[model], "Newest first.", _LINK)  # type: ignore[valid-type]
    return {200: found, 503: problem(503, unread, _UNREAD), **_FILTERED}


@router.get("/decisions", summary="Read the decision log", responses=_page_of(DecisionAnswer))
@see("risk", "agents")
@needs(Role.VIEWER)
async def decisions(parts: PartsOf, request: Request, query: Annotated[DecisionQuery, Query()]) -> Response:
    """What this desk decided and why, newest first. One entry for each cycle (`order_intent`, or `no_action` if nothing was
    chosen), for each command (`control`), and for each action of a risk limit (`risk_action`). The `Link` header has the URL
    of the next page.
    """
    return _page(request, *await parts.reports.page_text(DecisionFilter(**query.model_dump(), desk=parts.desk_name)))


@router.get("/instructions", summary="Read what was sent to the venue", responses=_page_of(InstructionAnswer))
@see("venue")
@needs(Role.VIEWER)
async def instructions(parts: PartsOf, request: Request, query: Annotated[InstructionQuery, Query()]) -> Response:
    """Every cancel and order of this desk, newest first, and what became of it: `prepared` when written, `confirmed` when the
    venue answered. The `Link` header has the URL of the next page.
    """
    wanted = InstructionFilter(**query.model_dump())
    page = await parts.reports.instructions(parts.desk_name, wanted, lambda rows: _json(map(instruction, rows)))
    return _page(request, *page)


@router.get("/fills", summary="Read the executions", responses=_page_of(FillAnswer, READING_BOOKS))
@see("venue", "paper-venue")
@needs(Role.VIEWER)
async def fills(parts: PartsOf, request: Request, query: Annotated[PageQuery, Query()]) -> Response:
    """What was bought and sold for this desk, newest first, on the paper venue or on its real account. Prices and amounts are
    text, so that no digit is lost. The `Link` header has the URL of the next page.
    """
    wanted = PageFilter(**query.model_dump())
    page = await parts.reports.fills(parts.desk_name, wanted, lambda rows: _json(shown(rows, FillAnswer)))
    return _page(request, *page)


@router.get("/ledger", summary="Read funding and other payments", responses=_page_of(EntryAnswer, READING_BOOKS))
@see("venue", "paper-venue")
@needs(Role.VIEWER)
async def ledger(parts: PartsOf, request: Request, query: Annotated[PageQuery, Query()]) -> Response:
    """Money of this desk's account that moved without a trade, such as funding, newest first. What the account received is
    positive. The `Link` header has the URL of the next page.
    """
    wanted = PageFilter(**query.model_dump())
    page = await parts.reports.ledger(parts.desk_name, wanted, lambda rows: _json(shown(rows, EntryAnswer)))
    return _page(request, *page)


@router.get(
    "/equity",
    summary="Read the equity curve",
    responses={
        200: answer(list[EquityAnswer], "Oldest first."),
        503: problem(503, READING, _UNREAD),
        **_FILTERED,
    },
)
@see("risk")
@needs(Role.VIEWER)
async def equity(parts: PartsOf, query: Annotated[EquityQuery, Query()]) -> Response:
    """What the desk's account was worth in each cycle, with drawdown and exposure. If there are more cycles than `points`,
    the extremes of equal stretches of time are kept; over long times a curve begins and ends at a full hour. A cycle during which
    the database was down has no point.
    """
    wanted = CurveFilter(**query.model_dump(exclude={"symbol"}))
    curve = await parts.reports.curve(
        parts.desk_name, wanted, lambda rows: _json(_point(it, query.symbol) for it in rows)
    )
    return Response(curve, media_type="application/json")


@router.get(
    "/portfolio",
    summary="Read the account",
    responses={
        404: problem(404, {"no_account": NoAccount("main", Mode.PAPER)}, "There is no account yet."),
        503: problem(503, READING_BOOKS, _UNREAD),
        **_FILTERED,
    },
)
@see("venue", "paper-venue")
@needs(Role.VIEWER)
async def portfolio(parts: PartsOf, _: Annotated[NoQuery, Query()]) -> PortfolioAnswer:
    """Profit, fees, equity, drawdown and exposure of this desk, recomputed from all of its fills and ledger entries, and
    compared with the paper venue's book or, for a real account, with the exchange. `differences` is empty as long as they
    agree.
    """
    books = await parts.reports.books(parts.desk_name)
    if books is None:
        raise NoAccount(parts.desk_name, parts.mode)
    try:
        observation = (await parts.desk.read()).status.observation
    except GatewayError:
        # It is still the account, only without current prices; `valued_at` says so.
        observation = None
    return portfolio_answer(books, observation)


def _point(point: EquityPoint, symbol: str | None) -> dict[str, Any]:
    price = point.prices.get(symbol) if symbol else None
    shown = point.model_dump(mode="json", exclude={"prices"}) | {"price": None if price is None else str(price)}
    return shown | {"time": point.time.astimezone(UTC).isoformat()}


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(rows), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _page(request: Request, text: str, cursor: str | None) -> Response:
    link = {"Link": f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'} if cursor else None
    return Response(text, headers=link, media_type="application/json")
