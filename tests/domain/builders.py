"""Builders with defaults: a test states only what matters to it."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from domain.desk.carried import Carried
from domain.desk.commands import AddSymbols, CancelAll, Command, Deleverage, Propose, Restart, SetLimits
from domain.desk.recording import Tick
from domain.desk.states import CommandKind, Mode
from domain.risk.assessing import assess
from domain.risk.guards import BarSummary, MarketContext
from domain.risk.limits import Limits
from domain.trading.assessment import RiskMemory
from domain.trading.decisions import ENTROPY_BITS, time_ordered_id
from domain.trading.instructions import OrderInstruction, OrderType, Side
from domain.trading.market import Account, LatchRow, Observation, OpenOrder, Position, SymbolRules
from domain.trading.proposals import ProposalRequest

NOW = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
BTC, ETH = "BTCUSDT", "ETHUSDT"
_random = random.Random(1)


def a_tick(after: timedelta = timedelta(0)) -> Tick:
    now = NOW + after
    return Tick(now, lambda prefix: time_ordered_id(prefix, now, _random.getrandbits(ENTROPY_BITS)))


def a_desk(**changes: Any) -> Carried:
    facts: dict[str, Any] = {
        "desk": "main",
        "mode": Mode.PAPER,
        "symbols": [BTC],
        "cycle_seconds": 5.0,
        "limits": Limits(),
        "search_attributes": True,
        "started_at": NOW,
        "since": NOW,
    }
    return Carried(**(facts | changes))


_FACTS: dict[CommandKind, tuple[type[Command], dict[str, Any]]] = {
    CommandKind.CANCEL_ALL: (CancelAll, {}),
    CommandKind.ADD_SYMBOLS: (AddSymbols, {"symbols": ["SOLUSDT"]}),
    CommandKind.DELEVERAGE: (Deleverage, {"symbol": BTC, "reduce_pct": Decimal(1)}),
    CommandKind.RESTART: (Restart, {"kill_number": 1}),
    CommandKind.SET_LIMITS: (SetLimits, {"limits": {"max_leverage": "1"}}),
    CommandKind.PROPOSE: (
        Propose,
        {"proposal": ProposalRequest(agent_id="agent", symbol=BTC, side=Side.BUY, confidence=0.5)},
    ),
}


def a_command(kind: CommandKind, command_id: str | None = None, **changes: Any) -> Command:
    form, facts = _FACTS.get(kind, (Command, {}))
    named = command_id or f"c{_random.getrandbits(64)}"
    return form(**{"command_id": named, "kind": kind, "actor": "test"} | facts | changes)


def a_deleverage(command_id: str | None = None, symbol: str = BTC) -> Deleverage:
    command = a_command(CommandKind.DELEVERAGE, command_id, symbol=symbol)
    assert isinstance(command, Deleverage)
    return command


def some_rules(symbol: str = BTC, **changes: Any) -> SymbolRules:
    facts: dict[str, Any] = {
        "symbol": symbol,
        "tick_size": Decimal("0.1"),
        "lot_step": Decimal("0.001"),
        "min_quantity": Decimal("0.001"),
        "min_notional": Decimal(5),
    }
    return SymbolRules(**(facts | changes))


def an_observation(**changes: Any) -> Observation:
    facts: dict[str, Any] = {
        "observed_at": NOW,
        "data_time": NOW,
        "marks": {BTC: Decimal(100)},
        "rules": {BTC: some_rules()},
        "positions": [],
        "open_orders": [],
        "account": Account(balance=Decimal(10_000)),
        "latch": LatchRow(killed=False, kill_number=0),
    }
    return Observation(**(facts | changes))


def watched(observation: Observation, limits: Limits | None = None, memory: RiskMemory | None = None) -> Observation:
    """The reading, held against the limits."""
    found = assess(observation.reading, limits or Limits(), memory or RiskMemory())
    return observation.model_copy(update={"assessment": found})


def a_context(observation: Observation | None = None, watch: bool = True, **changes: Any) -> MarketContext:
    """A calm, liquid market. A reading that nobody has watched yet is watched, unless `watch` says otherwise."""
    limits, seen = changes.get("limits", Limits()), observation or an_observation()
    facts: dict[str, Any] = {
        "observation": watched(seen, limits) if watch and seen.assessment is None else seen,
        "limits": limits,
        "symbols": [BTC, ETH],
        "now": NOW,
        "tapes": dict.fromkeys((BTC, ETH), BarSummary(reference_price=Decimal(100), bar_volume=Decimal(1_000_000))),
    }
    return MarketContext(**(facts | changes))


def a_position(quantity: Decimal | int | str, symbol: str = BTC, mark: Decimal | int = 100) -> Position:
    return Position(symbol=symbol, quantity=Decimal(quantity), entry_price=Decimal(100), mark_price=Decimal(mark))


def an_open_order(symbol: str) -> OpenOrder:
    return OpenOrder(
        order_id="o",
        symbol=symbol,
        market="futures",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal(1),
        filled_quantity=Decimal(0),
        price=Decimal(90),
        reduce_only=False,
    )


def an_order(quantity: Decimal | str | int = 1, side: Side = Side.BUY, symbol: str = BTC) -> OrderInstruction:
    return OrderInstruction(
        symbol=symbol, side=side, order_type=OrderType.MARKET, quantity=Decimal(quantity), reduce_only=False
    )
