"""Instructions: single venue tool calls, in the vocabulary of Aster's MCP server (docs/venue.md)."""

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from domain.values import Moment, Record, Value


class Tool(StrEnum):
    """The venue's tools that change something."""

    CANCEL_ALL_ORDERS = "cancel_all_orders"
    CANCEL_SPOT_ALL_ORDERS = "cancel_spot_all_orders"
    CANCEL_ORDER = "cancel_order"
    CREATE_ORDER = "create_order"


# The tools of a kill, which cancel every order of a symbol.
CANCEL_TOOLS = (Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS)


class CancelInstruction(Value):
    """Cancel every open order of one symbol on one of the venue's two markets."""

    tool: Literal[Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS]
    symbol: str


class Side(StrEnum):
    """Direction of an order."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """The venue's order types that AIS uses."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class TimeInForce(StrEnum):
    """How long an order may rest (Aster, timeInForce)."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTX = "GTX"
    """Good till crossing, that is post-only."""


class OrderInstruction(Value):
    """An order as an operator sees it. `quantity` is in units of the base asset.

    Without `time_in_force`, a limit order is GTC. A market order has none.
    """

    tool: Literal[Tool.CREATE_ORDER] = Tool.CREATE_ORDER
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    reduce_only: bool
    time_in_force: TimeInForce | None = None


class InstructionOutcome(StrEnum):
    """What is known of an instruction. `UNKNOWN` is a separate state: it was sent, but its result never arrived."""

    PREPARED = "prepared"
    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    FAILED = "failed"


class OpenCancel(Record):
    """A cancel that is prepared and not yet confirmed by the venue."""

    instruction_id: str
    command_id: str
    round: int
    tool: Tool
    symbol: str
    prepared_at: Moment
    attempts: int = 0
    last_error: str | None = None
    # Set while a venue call for it is under way.
    begun: bool = False
    of_kill: bool = False
    # For the cancel of a single order: our id of the order, and the venue's.
    order_id: str | None = None
    venue_order_id: str | None = None

    @classmethod
    def prepared(cls, command_id: str, number: int, tool: Tool, symbol: str, at: Moment) -> "OpenCancel":
        """A new cancel in a command's round. Its id is made of these facts, so a retry is the same instruction."""
        id_ = instruction_id(command_id, number, tool, symbol)
        return cls(instruction_id=id_, command_id=command_id, round=number, tool=tool, symbol=symbol, prepared_at=at)


class InstructionRow(Value):
    """The row of one instruction in the database, at its latest known state."""

    instruction_id: str
    desk: str
    command_id: str
    round: int
    tool: Tool
    symbol: str
    outcome: InstructionOutcome
    prepared_at: Moment
    settled_at: Moment | None = None
    attempts: int = 0
    detail: str | None = None
    order: OrderInstruction | None = None
    # The venue's id of the order, once the venue has told it.
    venue_order_id: str | None = None


def cancel_instructions(symbols: Iterable[str]) -> list[CancelInstruction]:
    """Two instructions per symbol, futures then spot, in the order of the symbols."""
    return [CancelInstruction(tool=tool, symbol=symbol) for symbol in symbols for tool in CANCEL_TOOLS]


def instruction_id(command_id: str, round_: int, tool: Tool, symbol: str) -> str:
    """Made of command, round, tool and symbol: a retry is the same instruction, a repeated kill or a later round a new one."""
    return f"{command_id}:{round_}:{tool.value}:{symbol}"
