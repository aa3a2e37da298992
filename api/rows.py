"""Database rows as the HTTP API answers them and `ais log --json` prints them."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from pydantic import BaseModel

from api.models import DecisionAnswer
from domain.trading.decisions import Decision
from domain.trading.instructions import InstructionRow
from domain.values import Value


def entry(row: Decision) -> dict[str, Any]:
    """The nine keys of the contract; UTC written as an offset."""
    shown = row.model_dump(mode="json", include=set(DecisionAnswer.model_fields))
    return {**shown, "timestamp": row.timestamp.astimezone(UTC).isoformat()}


def instruction(row: InstructionRow) -> dict[str, Any]:
    """An instruction, with the fields of its order at the same level."""
    order = row.order.model_dump(mode="json", exclude={"tool", "symbol"}) if row.order else {}
    order |= {"venue_order_id": row.venue_order_id} if row.order or row.venue_order_id else {}
    return row.model_dump(mode="json", exclude={"order", "desk", "venue_order_id"}) | order


def shown(rows: Sequence[Value], model: type[BaseModel]) -> list[dict[str, Any]]:
    """Rows with only the keys of their answer model."""
    names = set(model.model_fields)
    return [model.model_validate(row.model_dump(include=names)).model_dump(mode="json") for row in rows]
