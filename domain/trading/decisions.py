"""DecisionLog rows: a cycle's choice, a command, or what a limit did by itself."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from domain.values import Moment, Value

ENTROPY_BITS = 80


class DecisionType(StrEnum):
    """What a row is about."""

    ORDER_INTENT = "order_intent"
    CONTROL = "control"
    RISK_ACTION = "risk_action"
    NO_ACTION = "no_action"


class Decision(Value):
    """One row. The first nine fields are the contract's; the rest serve filters and joins.

    `risk_passed` is None if no order was checked: nothing passed and nothing failed. `command` is the kind of a command,
    `result` its outcome. `agent_id` is the agent whose proposal was chosen.
    """

    decision_id: str
    timestamp: Moment
    decision_type: DecisionType
    summary: str
    agent_votes: dict[str, float] = Field(default_factory=dict)
    selected_signal_id: str | None = None
    selected_order_id: str | None = None
    risk_passed: bool | None = None
    risk_reasons: list[str] = Field(default_factory=list)
    desk: str = "main"
    symbol: str | None = None
    command_id: str | None = None
    cycles: int = 1
    # For metrics, notifications and the replay's table. `source` is where a kill came from, or the level that a limit
    # reached.
    source: str | None = None
    command: str | None = None
    result: str | None = None
    # Not stored.
    agent_id: str | None = None

    @property
    def refused_by(self) -> list[str]:
        """The codes of the reasons why an order was refused, such as `order_unknown` in `order_unknown: ord_1`."""
        refused = self.decision_type is DecisionType.ORDER_INTENT and not self.risk_passed
        return [text.split(":")[0] for text in self.risk_reasons] if refused else []


def time_ordered_id(prefix: str, now: datetime, entropy: int) -> str:
    """`prefix_` and 32 hex digits: 48 bits of Unix milliseconds, then 80 random bits, so that ids sort by time."""
    milliseconds = int(now.timestamp() * 1000)
    return f"{prefix}_{milliseconds:012x}{entropy & (1 << ENTROPY_BITS) - 1:020x}"
