"""Proposals from outside: taken in, replaced, taken up by the next cycle, or refused with a reason."""

from collections.abc import Sequence

from domain.carried import Carried, Outcome, RefusalCode
from domain.commands import Command
from domain.deciding import Choice
from domain.decisions import Decision, DecisionType
from domain.outbox import queue_row
from domain.proposals import WaitingProposal
from domain.states import CommandKind
from domain.symbols import few
from domain.traces import Tick, remember
from domain.values import iso

MAX_PROPOSALS = 100


def check_proposal(c: Carried, command: Command) -> tuple[str, RefusalCode] | None:
    """Why a proposal is not taken in."""
    asked = command.proposal
    assert asked is not None
    if asked.symbol not in c.symbols:
        return f"unknown symbol {asked.symbol}; allowed are {few(c.symbols)}", RefusalCode.INVALID
    if len(c.proposals) >= MAX_PROPOSALS and not _same_proposals(c, command):
        return f"{MAX_PROPOSALS} proposals are waiting already; try again in the next cycle", RefusalCode.BUSY
    return None


def _same_proposals(c: Carried, command: Command) -> list[WaitingProposal]:
    """What the same agent has proposed before on the same symbol, and no cycle has taken up."""
    asked = command.proposal
    return [
        w for w in c.proposals if asked and (w.proposal.agent_id, w.proposal.symbol) == (asked.agent_id, asked.symbol)
    ]


def propose(c: Carried, command: Command, tick: Tick) -> None:
    """Takes a proposal in, in the place of what the same agent proposed before on the same symbol."""
    asked = command.proposal
    assert asked is not None
    record = remember(c, command, Outcome.PENDING, tick)
    # A clock that is ahead must not make it live for ever, nor a time at the end of all times break the sum.
    expires_at = asked.expiry(min(command.sent_at or tick.now, tick.now), c.cycle_seconds)
    waiting = WaitingProposal(command_id=command.command_id, proposal=asked.proposal(tick.new_id("sig"), expires_at))
    record.proposal_id, record.expires_at = waiting.proposal.proposal_id, expires_at
    if expires_at <= tick.now:
        settle(c, waiting, f"it came too late: it expired at {iso(expires_at)}", tick)
        record.code = RefusalCode.EXPIRED
        return
    for older in _same_proposals(c, command):
        c.proposals.remove(older)
        settle(c, older, None, tick, f"replaced by {command.command_id}")
    c.proposals.append(waiting)


def settle(c: Carried, waiting: WaitingProposal, refusal: str | None, tick: Tick, detail: str = "") -> None:
    """Notes what became of a proposal from outside; a refused one stands in the log."""
    record = c.commands.get(waiting.command_id)
    if record and record.kind is CommandKind.PROPOSE:
        record.outcome = Outcome.REFUSED if refusal else Outcome.APPLIED
        record.detail, record.code = refusal or detail, RefusalCode.CONFLICT if refusal else None
    if refusal:
        p = waiting.proposal
        queue_row(c, _proposal_row(c, waiting.command_id, p.agent_id, p.symbol, refusal, tick))


def _proposal_row(c: Carried, command_id: str, actor: str, symbol: str, refusal: str, tick: Tick) -> Decision:
    return Decision(
        decision_id=tick.new_id("decision"),
        timestamp=tick.now,
        decision_type=DecisionType.CONTROL,
        summary=f"propose refused by {actor}: {refusal}",
        risk_reasons=[refusal],
        desk=c.desk,
        symbol=symbol,
        command_id=command_id,
    )


def expire(c: Carried, tick: Tick) -> None:
    """Refuses the proposals whose time is up."""
    late = [w for w in c.proposals if w.proposal.expires_at and w.proposal.expires_at <= tick.now]
    c.proposals = [w for w in c.proposals if w not in late]
    for waiting in late:
        settle(c, waiting, "it expired before a cycle took it up", tick)


def taken_up(c: Carried, taken: Sequence[WaitingProposal], choice: Choice, row: Decision, tick: Tick) -> None:
    """Notes what a cycle made of the proposals that it was given."""
    ids = {waiting.command_id for waiting in taken}
    c.proposals = [w for w in c.proposals if w.command_id not in ids]
    chosen = choice.proposal.proposal_id if choice.proposal else None
    for waiting in taken:
        proposal_id = waiting.proposal.proposal_id
        verdict = "not selected" if proposal_id != chosen else ", ".join(choice.risk_reasons)
        settle(c, waiting, choice.not_taken.get(proposal_id), tick, f"taken up by {row.decision_id}: {verdict}")
