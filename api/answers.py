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
    action: str
    facts: dict[str, Any]
    match _kind(command):
        case CommandKind.PAUSE:
            action, facts = "paused", {"reason": command.reason}
        case CommandKind.RESUME:
            action, facts = "resumed", {}
        case CommandKind.KILL:
            action, facts = "killed", {"reason": command.reason, "cancel_instructions": _plain(cancels)}
        case CommandKind.CANCEL_ALL:
            action = "cancel_all_prepared"
            facts = {"symbols": list(symbols or []), "cancel_instructions": _plain(cancels)}
        case CommandKind.DELEVERAGE:
            action = "deleverage_prepared"
            facts = {"symbol": command.symbol, "reduce_pct": _number(command.reduce_pct)}
            facts["instruction"] = _order(instruction)
        case CommandKind.RESTART:
            action, facts = "restarted", {"reason": command.reason}
        case CommandKind.SET_LIMITS:
            action, facts = "limits_set", {"limits": _numbers(command.limits)}
        case CommandKind.PROPOSE:
            action, facts = "proposed", _proposal(command)
    return {"action": action, **facts}


def accepted_body(command: Command | CommandOutcome, cancels: Cancels | None) -> dict[str, Any]:
    """The body of a command that is recorded and not confirmed."""
    action = {"action": f"{_kind(command).value}_accepted", **_proposal(command)}
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


def _proposal(command: Command | CommandOutcome) -> dict[str, Any]:
    """What the coordinator made of a proposal; nothing for another command, or where it is not known yet."""
    if isinstance(command, Command) or command.proposal_id is None:
        return {}
    expires_at = command.expires_at.isoformat() if command.expires_at else None
    known = {"proposal_id": command.proposal_id, "expires_at": expires_at}
    return known if command.detail is None else {**known, "detail": command.detail}


def _numbers(limits: dict[str, str] | None) -> dict[str, float]:
    return {name: float(value) for name, value in (limits or {}).items()}


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
