"""The models of the API's answers for OpenAPI, each with an example."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer

from domain.accounting import LedgerKind, PortfolioLine
from domain.desk.outbox import NOT_SENT_IN_SHADOW
from domain.desk.states import CommandKind, Mode, State
from domain.trading.decisions import DecisionType
from domain.trading.instructions import InstructionOutcome, OrderType, Side, TimeInForce
from domain.trading.market import Market
from domain.values import plain

KILLED = "The coordinator is killed; only a manual restart brings it back."
_CANCELS: list[Any] = [
    {"tool": "cancel_all_orders", "symbol": "BTCUSDT"},
    {"tool": "cancel_spot_all_orders", "symbol": "BTCUSDT"},
]
_ORDER: dict[str, Any] = {
    "tool": "create_order",
    "symbol": "BTCUSDT",
    "side": "SELL",
    "order_type": "MARKET",
    "quantity": 0.125,
    "reduce_only": True,
}


# `0.00000000` is written `0`, and small amounts without an exponent: `str` would write `0E-8` and `1E-8`.
Amount = Annotated[Decimal, PlainSerializer(lambda number: f"{plain(number):f}", return_type=str, when_used="json")]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _example(value: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [value]})


class CancelInstructionAnswer(_Answer):
    """One cancel."""

    tool: Literal["cancel_all_orders", "cancel_spot_all_orders"]
    symbol: str


class OrderInstructionAnswer(_Answer):
    """One order."""

    tool: Literal["create_order"]
    symbol: str
    side: Side
    order_type: OrderType
    quantity: float
    price: float | None = None
    reduce_only: bool


class ModeAnswer(_Answer):
    """The configured mode."""

    model_config = _example({"default_mode": "paper"})
    default_mode: Mode


class StateAnswer(_Answer):
    """The coordinator's state."""

    model_config = _example({"state": "running"})
    state: State


class PausedAnswer(_Answer):
    """Paused."""

    model_config = _example({"action": "paused", "reason": "manual review"})
    action: Literal["paused"]
    reason: str


class ResumedAnswer(_Answer):
    """Running again."""

    model_config = _example({"action": "resumed"})
    action: Literal["resumed"]


class KilledAnswer(_Answer):
    """Killed."""

    model_config = _example(
        {"action": "killed", "reason": "drawdown exceeded manual threshold", "cancel_instructions": _CANCELS}
    )
    action: Literal["killed"]
    reason: str
    cancel_instructions: list[CancelInstructionAnswer]


class KillAcceptedAnswer(_Answer):
    """Recorded and not confirmed; the instructions are for a person to act on."""

    model_config = _example(
        {"action": "kill_accepted", "reason": "drawdown exceeded manual threshold", "cancel_instructions": _CANCELS}
    )
    action: Literal["kill_accepted"]
    reason: str
    cancel_instructions: list[CancelInstructionAnswer]


class CancelAllAnswer(_Answer):
    """Cancels are prepared."""

    model_config = _example({"action": "cancel_all_prepared", "symbols": ["BTCUSDT"], "cancel_instructions": _CANCELS})
    action: Literal["cancel_all_prepared"]
    symbols: list[str]
    cancel_instructions: list[CancelInstructionAnswer]


class DeleverageAnswer(_Answer):
    """The reducing order was sent, once. `detail` is there only if it was filled in part, and says how much of it was."""

    model_config = _example(
        {"action": "deleverage_prepared", "symbol": "BTCUSDT", "reduce_pct": 0.5, "instruction": _ORDER}
    )
    action: Literal["deleverage_prepared"]
    symbol: str
    reduce_pct: float
    instruction: OrderInstructionAnswer
    detail: str | None = None


class LimitsAnswer(_Answer):
    """The limits that were named, as they are now."""

    model_config = _example({"action": "limits_set", "limits": {"max_leverage": 1.5}})
    action: Literal["limits_set"]
    limits: dict[str, float]


class ProposalAcceptedAnswer(_Answer):
    """Accepted for the next cycle; without an id if it is recorded and not confirmed yet."""

    model_config = _example(
        {"action": "propose_accepted", "proposal_id": "sig_0190f3", "expires_at": "2026-03-12T14:35:00+00:00"}
    )
    action: Literal["propose_accepted"]
    proposal_id: str | None = None
    expires_at: datetime | None = None


class ProposedAnswer(_Answer):
    """A repeated request, whose proposal a cycle has taken up meanwhile."""

    model_config = _example(
        {
            "action": "proposed",
            "proposal_id": "sig_0190f3",
            "expires_at": "2026-03-12T14:35:00+00:00",
            "detail": "taken up by decision_0190f3: not selected",
        }
    )
    action: Literal["proposed"]
    proposal_id: str
    expires_at: datetime
    detail: str | None = None


class AcceptedAnswer(_Answer):
    """Recorded and not confirmed."""

    model_config = _example({"action": "pause_accepted"})
    action: Literal[
        "pause_accepted", "resume_accepted", "cancel_all_accepted", "deleverage_accepted", "set_limits_accepted"
    ]


COMMAND_EXAMPLES: dict[str, Any] = {
    "applied": {
        "command_id": "9f1c",
        "command": "kill",
        "outcome": "applied",
        "action": "killed",
        "reason": "drawdown exceeded manual threshold",
        "cancel_instructions": _CANCELS,
    },
    "refused": {"command_id": "7b02", "command": "resume", "outcome": "refused", "detail": KILLED},
    "pending": {"command_id": "51aa", "command": "deleverage", "outcome": "pending", "action": "deleverage_accepted"},
}


class CommandAnswer(BaseModel):
    """What became of a command: these three keys, and those of the command's own response."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [*COMMAND_EXAMPLES.values()]})
    command_id: str
    command: CommandKind
    outcome: Literal["applied", "refused", "pending"]


class DecisionAnswer(_Answer):
    """One DecisionLog entry."""

    model_config = _example(
        {
            "decision_id": "decision_0190f3a2c4e1d0000000000000000001",
            "timestamp": "2026-03-12T14:30:00+00:00",
            "decision_type": "order_intent",
            "summary": "Selected BTCUSDT from funding_rate",
            "agent_votes": {"funding_rate": 0.85, "momentum": 0.62},
            "selected_signal_id": "sig_0190f3a2c4e1d0000000000000000002",
            "selected_order_id": "ord_0190f3a2c4e1d0000000000000000003",
            "risk_passed": True,
            "risk_reasons": ["approved"],
        }
    )
    decision_id: str
    timestamp: datetime
    decision_type: DecisionType
    summary: str
    agent_votes: dict[str, float]
    selected_signal_id: str | None
    selected_order_id: str | None
    risk_passed: bool | None
    risk_reasons: list[str]


class InstructionAnswer(_Answer):
    """One instruction and what became of it. `round` counts the repetitions of a kill; orders have the last seven keys."""

    model_config = _example(
        {
            "instruction_id": "ord_0190f3a2c4e1d0000000000000000003",
            "command_id": "decision_0190f3a2c4e1d0000000000000000001",
            "round": 1,
            "tool": "create_order",
            "symbol": "BTCUSDT",
            "outcome": "prepared",
            "prepared_at": "2026-03-12T14:30:00.120000+00:00",
            "settled_at": "2026-03-12T14:30:00.410000+00:00",
            "attempts": 1,
            "detail": NOT_SENT_IN_SHADOW,
            "side": "SELL",
            "order_type": "MARKET",
            "quantity": "0.125",
            "reduce_only": True,
        }
    )
    instruction_id: str
    command_id: str
    round: int
    tool: str
    symbol: str
    outcome: InstructionOutcome
    prepared_at: datetime
    settled_at: datetime | None
    attempts: int
    detail: str | None
    side: Side | None = None
    order_type: OrderType | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    reduce_only: bool | None = None
    time_in_force: TimeInForce | None = None
    venue_order_id: str | None = None


class EquityAnswer(_Answer):
    """The account at one moment. Numbers are text, so that no digit is lost. Drawdown is a fraction of the peak; exposures and
    leverage are fractions of equity. `price` is that of the symbol in the query."""

    model_config = _example(
        {
            "time": "2026-03-12T14:30:00.410000+00:00",
            "equity": "10125.5",
            "balance": "10113",
            "drawdown": "0.0042",
            "gross_exposure": "0.79",
            "net_exposure": "0.79",
            "leverage": "0.79",
            "price": "64000.5",
        }
    )
    time: datetime
    equity: str
    balance: str
    drawdown: str
    gross_exposure: str
    net_exposure: str
    leverage: str
    price: str | None


class FillAnswer(_Answer):
    """One execution. Prices and amounts are text, so that no digit is lost; `realised_profit` does not contain the fee."""

    model_config = _example(
        {
            "fill_id": "ord_0190f3a2:1",
            "order_id": "ord_0190f3a2",
            "filled_at": "2026-03-12T14:30:00.410000+00:00",
            "market_time": "2026-03-12T14:29:00+00:00",
            "market": "futures",
            "symbol": "BTCUSDT",
            "side": "SELL",
            "quantity": "0.125",
            "price": "64000.5",
            "fee": "3.200025",
            "realised_profit": "12.5",
            "maker": False,
        }
    )
    fill_id: str
    order_id: str
    filled_at: datetime
    market_time: datetime | None
    market: Market
    symbol: str
    side: Side
    quantity: Amount
    price: Amount
    fee: Amount
    realised_profit: Amount
    maker: bool


class EntryAnswer(_Answer):
    """Money that moved without a trade; what the account received is positive."""

    model_config = _example(
        {
            "entry_id": "funding_main_480_BTCUSDT",
            "at": "2026-03-12T16:00:02.010000+00:00",
            "market_time": "2026-03-12T16:00:00+00:00",
            "kind": "funding",
            "market": "futures",
            "symbol": "BTCUSDT",
            "amount": "-0.80000625",
            "price": "64000.5",
            "rate": "0.0001",
        }
    )
    entry_id: str
    at: datetime
    market_time: datetime
    kind: LedgerKind
    market: Market
    symbol: str
    amount: Amount
    price: Amount | None
    rate: Amount | None


class PortfolioAnswer(_Answer):
    """The account, computed from all of its fills and ledger entries.

    `differences` is empty as long as the venue's own book agrees. For a real account it lists, with both numbers, each
    difference from the exchange, and everything that could not be read. Valued at the coordinator's latest prices; where it has
    none, `valued_at` is null and the prices of the last trades are used. Peak, drawdown and the day's loss are computed at
    the prices of the trades and of now; those that the limits use are in `GET /control/coordinator`.
    """

    model_config = _example(
        {
            "desk": "main",
            "valued_at": "2026-03-12T14:30:00+00:00",
            "differences": [],
            "opening_balance": "100000",
            "balance": "100009.299975",
            "realised_profit": "12.5",
            "fees": "3.200025",
            "funding": "0",
            "unrealised_profit": "25",
            "equity": "100034.299975",
            "peak": "100040",
            "drawdown": "0.000056974210",
            "max_drawdown": "0.0004",
            "day": "2026-03-12",
            "day_loss": "0",
            "gross_exposure": "8000.0625",
            "net_exposure": "8000.0625",
            "leverage": "0.079973",
            "lines": [
                {
                    "market": "futures",
                    "symbol": "BTCUSDT",
                    "quantity": "0.125",
                    "entry_price": "63800.5",
                    "mark_price": "64000.5",
                    "notional": "8000.0625",
                    "unrealised_profit": "25",
                    "realised_profit": "12.5",
                    "fees": "3.200025",
                    "funding": "0",
                }
            ],
        }
    )
    desk: str
    valued_at: datetime | None
    differences: list[str]
    opening_balance: Amount
    balance: Amount
    realised_profit: Amount
    fees: Amount
    funding: Amount
    unrealised_profit: Amount
    equity: Amount
    peak: Amount
    drawdown: Amount
    max_drawdown: Amount
    day: date | None
    day_loss: Amount
    gross_exposure: Amount
    net_exposure: Amount
    leverage: Amount | None
    lines: list[PortfolioLine]


class HealthAnswer(_Answer):
    """What the probes found."""

    model_config = _example(
        {
            "status": "ok",
            "aster_connected": True,
            "db_connected": True,
            "redis_connected": False,
            "temporal_connected": True,
        }
    )
    status: Literal["ok", "degraded"]
    aster_connected: bool
    db_connected: bool
    redis_connected: bool
    temporal_connected: bool


class AliveAnswer(_Answer):
    """The process answers."""

    model_config = _example({"status": "alive"})
    status: Literal["alive"]


class Problem(_Answer):
    """Every error but 422."""

    detail: str


class UnconfirmedKill(_Answer):
    """A kill that is not confirmed, and the cancels that a person can send by hand."""

    detail: str
    cancel_instructions: list[CancelInstructionAnswer] | None = None


class InvalidEntry(_Answer):
    """One thing that is wrong."""

    loc: list[str | int]
    msg: str
    type: str


class Invalid(_Answer):
    """422."""

    model_config = _example(
        {
            "detail": [
                {
                    "loc": ["body", "symbols", 0],
                    "msg": "'?' is not a symbol",
                    "type": "symbol",
                }
            ]
        }
    )
    detail: list[InvalidEntry]
