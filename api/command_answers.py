"""The bodies of command answers, for a POST and later for `/control/commands/{id}`."""

from collections.abc import Iterable
from typing import Any

from domain.desk.carried import Outcome
from domain.desk.commands import Command
from domain.desk.states import CommandKind
from domain.desk.status import CommandOutcome
from domain.trading.instructions import CancelInstruction, OrderInstruction


def applied_body(outcome: CommandOutcome, reason: str) -> dict[str, Any]:
    """The body for an applied command; its keys are the contract's. A POST gets back its own reason in full."""
    action: str
    facts: dict[str, Any]
    match outcome.command:
        case CommandKind.PAUSE:
            action, facts = "paused", {"reason": reason}
        case CommandKind.RESUME:
            action, facts = "resumed", {}
        case CommandKind.KILL:
            action, facts = "killed", {"reason": reason, "cancel_instructions": outcome.cancel_instructions or []}
        case CommandKind.CANCEL_ALL:
            action = "cancel_all_prepared"
            facts = {"symbols": outcome.symbols or [], "cancel_instructions": outcome.cancel_instructions or []}
        case CommandKind.DELEVERAGE:
            action = "deleverage_prepared"
            fraction = None if outcome.reduce_pct is None else float(outcome.reduce_pct)
            facts = {"symbol": outcome.symbol, "reduce_pct": fraction, "instruction": _order(outcome.instruction)}
            # How much of it was filled: a partial deleverage is never reported as complete.
            facts |= {"detail": outcome.detail} if outcome.detail else {}
        case CommandKind.RESTART:
            action, facts = "restarted", {"reason": reason}
        case CommandKind.SET_LIMITS:
            numbers = {name: float(value) for name, value in (outcome.limits or {}).items()}
            action, facts = "limits_set", {"limits": numbers}
        case CommandKind.ADD_SYMBOLS:
            action, facts = "symbols_added", {"symbols": outcome.symbols or []}
        case CommandKind.PROPOSE:
            action, facts = "proposed", _proposal(outcome)
    return {"action": action, **facts}


def pending_body(outcome: CommandOutcome) -> dict[str, Any]:
    """The body for a command that the coordinator has accepted but not settled."""
    return {"action": f"{outcome.command.value}_accepted", **_proposal(outcome)}


def unconfirmed_body(command: Command, cancels: Iterable[CancelInstruction] | None) -> dict[str, Any]:
    """The body for a command that is recorded but not confirmed; for a kill, `cancels` are those it will send."""
    action = {"action": f"{command.kind.value}_accepted"}
    if cancels is None:
        return action
    instructions = [cancel.model_dump(mode="json") for cancel in cancels]
    return {**action, "reason": command.reason, "cancel_instructions": instructions}


def outcome_body(outcome: CommandOutcome) -> dict[str, Any]:
    """What became of a command, with the command's own answer."""
    head = {"command_id": outcome.command_id, "command": outcome.command.value, "outcome": outcome.outcome.value}
    match outcome.outcome:
        case Outcome.APPLIED:
            return {**head, **applied_body(outcome, outcome.reason)}
        case Outcome.REFUSED:
            return {**head, "detail": outcome.detail or "refused"}
        case Outcome.PENDING:
            return {**head, **pending_body(outcome)}


def _proposal(outcome: CommandOutcome) -> dict[str, Any]:
    """What became of a proposal; empty for other commands."""
    if outcome.proposal_id is None:
        return {}
    expires_at = outcome.expires_at.isoformat() if outcome.expires_at else None
    known = {"proposal_id": outcome.proposal_id, "expires_at": expires_at}
    return known if outcome.detail is None else {**known, "detail": outcome.detail}


def _order(instruction: OrderInstruction | None) -> dict[str, Any] | None:
    if instruction is None:
        return None
    shown = instruction.model_dump(mode="json", exclude_none=True)
    # JSON numbers, as in the contract; lots have far fewer digits than a double holds exactly.
    return {name: float(value) if name in ("quantity", "price") else value for name, value in shown.items()}
