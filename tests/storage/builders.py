"""Rows with defaults; a test states only what matters to it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine

from domain.desk.outbox import DeskRow
from domain.desk.states import Mode
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionOutcome, InstructionRow, OrderInstruction, OrderType, Side, Tool
from domain.trading.market import LatchRow

NOW = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)
_numbers = itertools.count()


class Undone:
    """What an engine begins, one after the other, on one connection whose owner rolls all of it back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self._connection.begin_nested():
            yield self._connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        yield self._connection


Source = Engine | Undone


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def make_decision(**changes: Any) -> Decision:
    defaults = {
        "decision_id": f"decision_{next(_numbers):012x}",
        "timestamp": NOW,
        "decision_type": DecisionType.ORDER_INTENT,
        "summary": "Selected BTCUSDT from momentum",
    }
    return Decision.model_validate(defaults | changes)


def make_instruction(**changes: Any) -> InstructionRow:
    defaults = {
        "instruction_id": f"command:1:cancel_all_orders:{next(_numbers)}",
        "desk": "main",
        "command_id": "command",
        "round": 1,
        "tool": Tool.CANCEL_ALL_ORDERS,
        "symbol": "BTCUSDT",
        "outcome": InstructionOutcome.PREPARED,
        "prepared_at": NOW,
    }
    return InstructionRow.model_validate(defaults | changes)


def make_order_instruction(**changes: Any) -> OrderInstruction:
    defaults = {
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": Decimal("0.125"),
        "reduce_only": False,
    }
    return OrderInstruction.model_validate(defaults | changes)


def make_desk_row(desk: str, *, killed: bool = False, number: int = 0, **changes: Any) -> DeskRow:
    kill_id = changes.pop("kill_id", f"{desk}-{number}" if number else None)
    defaults = {
        "desk": desk,
        "started_at": NOW,
        "mode": Mode.PAPER,
        "symbols": ["BTCUSDT"],
        "latch": LatchRow(killed=killed, kill_number=number, kill_id=kill_id, reason="flash crash", actor="http"),
        "killed_at": NOW if killed else None,
    }
    return DeskRow.model_validate(defaults | changes)
