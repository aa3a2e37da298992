"""Proposals from outside (over HTTP or by signal): queued, replaced, taken up by the next cycle, or refused with a reason."""

from collections.abc import Sequence

from domain.deciding import Choice
from domain.desk.carried import Carried, Outcome, Refusal, RefusalCode
from domain.desk.commands import Propose
from domain.desk.outbox import queue_row
from domain.desk.recording import Tick, decision_row, remember
from domain.desk.states import CommandKind
from domain.trading.decisions import Decision, DecisionType
from domain.trading.proposals import WaitingProposal
from domain.trading.symbols import few
from domain.values import iso, without

MAX_PROPOSALS = 100


def propose(c: Carried, command: Propose, tick: Tick) -> Refusal | None:
    """Queues a proposal, replacing any earlier one by the same agent for the same symbol. Otherwise returns why not."""
    asked = command.proposal
    if asked.symbol not in c.symbols:
        return Refusal(f"unknown symbol {asked.symbol}; allowed are {few(c.symbols)}", RefusalCode.INVALID)
    mine = asked.agent_id, asked.symbol
    replaced = [w for w in c.proposals if (w.proposal.agent_id, w.proposal.symbol) == mine]
    if len(c.proposals) >= MAX_PROPOSALS and not replaced:
        text = f"{MAX_PROPOSALS} proposals are waiting already; try again in the next cycle"
        return Refusal(text, RefusalCode.BUSY)
    record = remember(c, command, Outcome.PENDING, tick)
    # A sender's fast clock must not keep the proposal alive for ever, and an extreme time must not overflow the sum.
    expires_at = asked.expiry(min(command.sent_at or tick.now, tick.now), c.cycle_seconds)
    waiting = WaitingProposal(command_id=command.command_id, proposal=asked.proposal(tick.new_id("sig"), expires_at))
    record.proposal_id, record.expires_at = waiting.proposal.proposal_id, expires_at
    if expires_at <= tick.now:
        settle(c, waiting, f"it came too late: it expired at {iso(expires_at)}", tick)
        record.code = RefusalCode.EXPIRED
        return None
    for older in replaced:
        c.proposals = without(c.proposals, older)
        settle(c, older, None, tick, f"replaced by {command.command_id}")
    c.proposals.append(waiting)
    return None


def settle(c: Carried, waiting: WaitingProposal, refusal: str | None, tick: Tick, detail: str = "") -> None:
    """Notes the outcome of a proposal. A refusal also gets a row in the log."""
    record = c.commands.get(waiting.command_id)
    if record and record.kind is CommandKind.PROPOSE:
        record.outcome = Outcome.REFUSED if refusal else Outcome.APPLIED
        record.detail, record.code = refusal or detail, RefusalCode.CONFLICT if refusal else None
    if refusal:
        p, id_ = waiting.proposal, waiting.command_id
        summary = f"propose refused by {p.agent_id}: {refusal}"
        row = decision_row(c, DecisionType.CONTROL, summary, tick, reasons=[refusal], symbol=p.symbol, command_id=id_)
        queue_row(c, row)


def expire(c: Carried, tick: Tick) -> None:
    """Refuses the proposals whose time is up."""
    late = [w for w in c.proposals if w.proposal.expires_at and w.proposal.expires_at <= tick.now]
    gone = {waiting.command_id for waiting in late}
    c.proposals = [w for w in c.proposals if w.command_id not in gone]
    for waiting in late:
        settle(c, waiting, "it expired before a cycle took it up", tick)


def taken_up(c: Carried, taken: Sequence[WaitingProposal], choice: Choice, row: Decision, tick: Tick) -> None:
    """Notes what a cycle did with the proposals it was given."""
    if not taken:
        return
    ids, still = {waiting.command_id for waiting in taken}, {waiting.command_id for waiting in c.proposals}
    c.proposals = [w for w in c.proposals if w.command_id not in ids]
    chosen = choice.proposal.proposal_id if choice.proposal else None
    for waiting in taken:
        proposal_id = waiting.proposal.proposal_id
        refusal = choice.not_taken.get(proposal_id)
        if refusal and waiting.command_id not in still:
            # The agent replaced it while the cycle was deciding, and was told so.
            continue
        verdict = "not selected" if proposal_id != chosen else ", ".join(choice.risk_reasons)
        settle(c, waiting, refusal, tick, f"taken up by {row.decision_id}: {verdict}")
