"""The bodies of command answers, made in one place: what a POST is told, and `/control/commands/{id}` later."""

from collections.abc import Iterable, Sequence
from typing import Any

from domain.carried import Outcome
from domain.commands import Command
from domain.instructions import CancelInstruction, OrderInstruction
from domain.states import CommandKind
from domain.status import CommandOutcome

Cancels = Iterable[CancelInstruction | dict[str, str]]


def applied_body(
    command: Command | CommandOutcome,
    symbols: Sequence[str] | None = None,
    cancels: Cancels | None = None,
    instruction: OrderInstruction | None = None,
) -> dict[str, Any]:
    """The body of a command that was applied; its keys are the contract's."""
    match _kind(command):
        case CommandKind.PAUSE:
            return {"action": "paused", "reason": command.reason}
        case CommandKind.RESUME:
            return {"action": "resumed"}
        case CommandKind.KILL:
            return {"action": "killed", "reason": command.reason, "cancel_instructions": _plain(cancels)}
        case CommandKind.CANCEL_ALL:
            found = {"symbols": list(symbols or []), "cancel_instructions": _plain(cancels)}
            return {"action": "cancel_all_prepared", **found}
        case CommandKind.DELEVERAGE:
            facts = {"symbol": command.symbol, "reduce_pct": _number(command.reduce_pct)}
            return {"action": "deleverage_prepared", **facts, "instruction": _order(instruction)}
        case CommandKind.RESTART:
            return {"action": "restarted", "reason": command.reason}


def accepted_body(command: Command | CommandOutcome, cancels: Cancels | None) -> dict[str, Any]:
    """The body of a command that is recorded and not confirmed."""
    action = {"action": f"{_kind(command).value}_accepted"}
    if cancels is None:
        return action
    return {**action, "reason": command.reason, "cancel_instructions": _plain(cancels)}


def outcome_body(outcome: CommandOutcome) -> dict[str, Any]:
    """What became of one command, with its answer."""
    head = {"command_id": outcome.command_id, "command": outcome.command.value, "outcome": outcome.outcome.value}
    match outcome.outcome:
        case Outcome.APPLIED:
            cancels, order = outcome.cancel_instructions, outcome.instruction
            return {**head, **applied_body(outcome, outcome.symbols, cancels, order)}
        case Outcome.REFUSED:
            return {**head, "detail": outcome.detail or "refused"}
        case Outcome.PENDING:
            return {**head, **accepted_body(outcome, None)}


def _kind(command: Command | CommandOutcome) -> CommandKind:
    return command.kind if isinstance(command, Command) else command.command


def _plain(cancels: Cancels | None) -> list[dict[str, str]]:
    return [cancel if isinstance(cancel, dict) else cancel.model_dump(mode="json") for cancel in cancels or ()]


def _order(instruction: OrderInstruction | None) -> dict[str, Any] | None:
    if instruction is None:
        return None
    shown = instruction.model_dump(mode="json", exclude_none=True)
    # A JSON number, as the contract has it; lots have far fewer digits than a double holds exactly.
    return {name: float(value) if name in ("quantity", "price") else value for name, value in shown.items()}


def _number(fraction: Any) -> float | None:
    return None if fraction is None else float(fraction)
