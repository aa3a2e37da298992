"""The models of bodies and queries. Unknown fields are refused: a typo must not widen an action."""

from datetime import datetime
from math import isfinite
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from domain.desk.payloads import DEFAULT_REASONS, MAX_REASON_CHARS
from domain.desk.states import CommandKind
from domain.trading.decisions import DecisionType
from domain.trading.instructions import InstructionOutcome, Side
from domain.trading.proposals import AGENT_ID, MAX_RATIONALE_CHARS
from domain.trading.quotes import QuoteTerms
from domain.trading.symbols import MAX_SYMBOL_CHARS, normalise_symbol
from domain.values import clean, encodable
from storage.equity import MAX_POINTS, MIN_POINTS


def _not_blank(text: str) -> str:
    cleaned = clean(text)
    if not cleaned:
        raise PydanticCustomError("reason_blank", "reason must not be blank")
    return cleaned


def _symbol(text: str) -> str:
    try:
        return normalise_symbol(text)
    except ValueError as error:
        raise PydanticCustomError("symbol", "{problem}", {"problem": str(error)}) from None


Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARS), AfterValidator(_not_blank)]
Symbol = Annotated[str, Field(min_length=1, max_length=2 * MAX_SYMBOL_CHARS), AfterValidator(_symbol)]
# Without repetitions.
Symbols = Annotated[list[Symbol], Field(min_length=1), AfterValidator(lambda given: list(dict.fromkeys(given)))]


def _moment(value: object) -> object:
    """An ISO 8601 time with its offset. An unescaped `+` arrives as a blank."""
    try:
        moment = datetime.fromisoformat(str(value).strip().replace(" ", "+"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 1 < moment.year < 9999:
        raise PydanticCustomError("moment", "must be an ISO 8601 time with an offset (2026-03-12T14:30:00+00:00)")
    return moment


_MOMENT = {"type": "string", "format": "date-time"}
OffsetMoment = Annotated[datetime, BeforeValidator(_moment), Field(json_schema_extra=_MOMENT)]


def _limit_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("limit", "must be a number")
    if isinstance(value, float) and not isfinite(value):
        raise PydanticCustomError("limit", "must be a finite number")
    return value


# Pydantic lets lone surrogates pass, and one broke the signal: a 500. Replaced, it becomes a 422 from the coordinator.
LimitName = Annotated[str, AfterValidator(encodable)]
LimitNumber = Annotated[float | str, BeforeValidator(_limit_number), AfterValidator(encodable)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PauseRequest(_Request):
    """Why the desk is paused."""

    reason: Reason = Field(
        DEFAULT_REASONS[CommandKind.PAUSE], description="Written to the decision log.", examples=["manual review"]
    )


class ResumeRequest(_Request):
    """Nothing; `{}` is accepted."""


class KillRequest(BaseModel):
    """Why the desk is killed. Documentation only: a kill is carried out whatever its body contains."""

    reason: str = Field(
        DEFAULT_REASONS[CommandKind.KILL],
        description="Written to the decision log; cut to 500 characters.",
        examples=["drawdown exceeded manual threshold"],
    )


class CancelAllRequest(_Request):
    """Which symbols; `null` or left out means every symbol."""

    symbols: Symbols | None = Field(
        None, description="In the venue's spelling; `btc/usdt` works too.", examples=[["BTCUSDT", "ETHUSDT"]]
    )


class DeleverageRequest(_Request):
    """Which position to reduce, and by what fraction of it."""

    symbol: Symbol = Field(description="The symbol of the futures position.", examples=["BTCUSDT"])
    reduce_pct: float = Field(
        strict=True,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="0.5 is half of the position, 1 is all of it.",
        examples=[0.5],
    )


class LimitsRequest(_Request):
    """Which limits change, by name (`limits` of `GET /control/coordinator` has them all)."""

    limits: Annotated[dict[LimitName, LimitNumber], Field(min_length=1)] = Field(
        description="The new values, by the name of the limit.", examples=[{"max_leverage": 1.5}]
    )
    reason: Reason | None = Field(None, description="Written to the decision log.", examples=["volatile day"])


class ProposalBody(QuoteTerms):
    """A proposal of an agent outside AIS. It expires at `expires_at` or `ttl_seconds` after it was sent, whichever is sooner;
    two cycles after it was sent if neither is given. With a `price` it asks for a limit order: GTC unless
    `time_in_force` says otherwise; `post_only` never takes from the book.
    """

    model_config = ConfigDict(extra="forbid")

    agent_id: str = Field(pattern=AGENT_ID, examples=["my-agent"])
    symbol: Symbol = Field(examples=["BTCUSDT"])
    side: Side = Field(examples=["BUY"])
    confidence: float = Field(strict=True, ge=0, le=1, allow_inf_nan=False, examples=[0.8])
    expected_return: float | None = Field(
        None, strict=True, ge=-1, le=1, allow_inf_nan=False, description="Fraction of the price, before costs."
    )
    rationale: str = Field("", max_length=MAX_RATIONALE_CHARS, examples=["breakout on the daily chart"])
    expires_at: OffsetMoment | None = Field(
        None, description="ISO 8601 time with an offset.", examples=["2026-03-12T14:35:00+00:00"]
    )
    ttl_seconds: float | None = Field(None, strict=True, gt=0, le=86_400, allow_inf_nan=False, examples=[60])


Token = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")]


class PageQuery(_Request):
    """Filters of a report in pages; unknown ones are refused."""

    limit: int = Field(50, ge=1, le=1000, description="Rows per page.")
    cursor: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[\x21-\x7e]+$")] | None = Field(
        None, description="Start of the page: the cursor in the `Link` header of the previous one."
    )
    symbol: Symbol | None = Field(None, description="Only rows of this symbol.")
    since: OffsetMoment | None = Field(
        None, description="Earliest time by the desk's clock, inclusive; with an offset."
    )
    until: OffsetMoment | None = Field(None, description="Latest time by the desk's clock, exclusive; with an offset.")


class EquityQuery(_Request):
    """The time that a curve shows, and its resolution; unknown fields are refused."""

    since: OffsetMoment | None = Field(
        None, description="Earliest time, inclusive, with an offset. Default: the desk's first cycle."
    )
    until: OffsetMoment | None = Field(
        None, description="Latest time, exclusive, with an offset. Default: the newest cycle."
    )
    points: int = Field(
        500, ge=MIN_POINTS, le=MAX_POINTS, description="Maximum number of points; extremes are always kept."
    )
    symbol: Symbol | None = Field(None, description="The symbol whose price to show as `price`.")


class DecisionQuery(PageQuery):
    """Filters of the decision log."""

    decision_type: DecisionType | None = Field(None, description="Only rows of this kind.")
    risk_passed: bool | None = Field(
        None, description="true: orders that passed the guards; false: orders that the guards refused."
    )
    agent_id: Token | None = Field(None, description="Only rows in which this agent voted.")


class InstructionQuery(PageQuery):
    """Filters of the instructions."""

    command_id: Token | None = Field(
        None, description="Only instructions of this command: the `X-Command-Id` of its response."
    )
    outcome: InstructionOutcome | None = Field(None, description="Only instructions with this outcome.")


class NoQuery(_Request):
    """Nothing: a filter that does not exist is refused, not overlooked."""
