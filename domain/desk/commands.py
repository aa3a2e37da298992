"""Commands: what an operator asks of the desk. Each kind with facts of its own has a class."""

import hashlib
import json
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from domain.desk.states import CommandKind, Mode
from domain.trading.proposals import ProposalRequest
from domain.trading.quotes import QuoteTerms
from domain.values import Moment, Value

DEFAULT_ACTOR = "temporal"


class Source(StrEnum):
    """Where a kill came from; a label in metrics."""

    OPERATOR = "operator"
    SIGNAL = "signal"
    CANCEL = "cancel"
    RISK = "risk"
    DATABASE = "database"


class NewTerms(Value):
    """Terms of a desk that a restart changes; None leaves a term as it is. A new mode comes with the fingerprint of its
    account."""

    mode: Mode | None = None
    account: str | None = None
    symbols: list[str] | None = None
    cycle_seconds: float | None = None
    kill_flattens: bool | None = None


SAME_TERMS = NewTerms()


class Command(Value):
    """What every command has. Kills, pauses and resumes have nothing else; neither has a command whose own facts cannot be
    read.

    `problem` names what could not be read. The coordinator then refuses the command, unless it is one of those three.
    """

    command_id: str
    kind: CommandKind
    actor: str = DEFAULT_ACTOR
    reason: str = ""
    source: Source = Source.SIGNAL
    sent_at: Moment | None = None
    problem: str | None = None
    # Whether the sender chose the id, and may ask what became of the command.
    named: bool = True

    @property
    def about(self) -> str | None:
        """The one symbol that the command is about, if any."""
        return None

    def remembered(self) -> dict[str, Any]:
        """The facts that every record of the command keeps."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """What makes two commands with one id the same command: kind, reason and facts."""
        facts = [self.kind, self.reason, *self._fingerprinted()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _fingerprinted(self) -> list[Any]:
        return _in_place()


def _in_place(
    symbols: list[str] | None = None,
    symbol: str | None = None,
    fraction: str | None = None,
    kill_number: int | None = None,
) -> list[Any]:
    """The facts of the first version. Each has a fixed place in every fingerprint, set or not. Facts added later follow
    only if set.

    Records outlive a version, so no fingerprint may ever change.
    """
    return [symbols, symbol, fraction, kill_number]


class CancelAll(Command):
    """Cancels the orders of these symbols; None means every symbol."""

    kind: Literal[CommandKind.CANCEL_ALL] = CommandKind.CANCEL_ALL
    symbols: list[str] | None = None

    def _fingerprinted(self) -> list[Any]:
        return _in_place(symbols=self.symbols)


class Deleverage(Command):
    """Closes a fraction of a position, 0 < `reduce_pct` <= 1."""

    kind: Literal[CommandKind.DELEVERAGE] = CommandKind.DELEVERAGE
    symbol: str
    reduce_pct: Decimal

    @property
    def about(self) -> str:
        """The symbol of the position."""
        return self.symbol

    def remembered(self) -> dict[str, Any]:
        """The position and the fraction."""
        return {"symbol": self.symbol, "reduce_pct": self.reduce_pct}

    def _fingerprinted(self) -> list[Any]:
        return _in_place(symbol=self.symbol, fraction=str(self.reduce_pct.normalize()))


class Restart(Command):
    """Brings the desk back from the kill with this number, and from no other.

    `database_id`: the database that becomes the desk's. `with_positions`: the mode may change although the desk leaves
    positions or orders at its old venue.
    """

    kind: Literal[CommandKind.RESTART] = CommandKind.RESTART
    kill_number: int
    database_id: str | None = None
    terms: NewTerms | None = None
    with_positions: bool = False

    def _fingerprinted(self) -> list[Any]:
        database = [{"database_id": self.database_id}] if self.database_id else []
        terms = [self.terms.model_dump(exclude_none=True)] if self.terms else []
        positions = [{"with_positions": True}] if self.with_positions else []
        return [*_in_place(kill_number=self.kill_number), *database, *terms, *positions]


class SetLimits(Command):
    """Sets limits by name. The numbers are texts."""

    kind: Literal[CommandKind.SET_LIMITS] = CommandKind.SET_LIMITS
    limits: dict[str, str]

    def _fingerprinted(self) -> list[Any]:
        return [*_in_place(), self.limits]


class AddSymbols(Command):
    """Adds symbols to the whitelist of a paused desk."""

    kind: Literal[CommandKind.ADD_SYMBOLS] = CommandKind.ADD_SYMBOLS
    symbols: list[str]

    def _fingerprinted(self) -> list[Any]:
        return _in_place(symbols=self.symbols)


class Propose(Command):
    """Submits an agent's proposal."""

    kind: Literal[CommandKind.PROPOSE] = CommandKind.PROPOSE
    proposal: ProposalRequest

    @property
    def about(self) -> str:
        """The symbol that the agent wants to trade."""
        return self.proposal.symbol

    def remembered(self) -> dict[str, Any]:
        """The symbol."""
        return {"symbol": self.proposal.symbol}

    def _fingerprinted(self) -> list[Any]:
        # A market order keeps the fingerprint that it had before proposals had prices.
        at_market = set(QuoteTerms.model_fields) if self.proposal.price is None else set()
        return [*_in_place(symbol=self.proposal.symbol), self.proposal.model_dump(mode="json", exclude=at_market)]
