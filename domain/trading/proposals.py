"""Proposals: what trading agents suggest, and the answers of all agents in one cycle."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from domain.trading.instructions import Side
from domain.trading.quotes import QuoteTerms, upper
from domain.trading.symbols import normalise_symbol
from domain.values import Moment, Record, Value, no_truth


class Proposal(QuoteTerms):
    """One suggestion. `confidence` is a fraction of 1, `expected_return` a fraction of the price, before costs.

    `expires_at` is set for a proposal from outside. A `price` asks for a limit order.
    """

    proposal_id: str
    agent_id: str
    symbol: str
    side: Side
    confidence: float
    expected_return: float | None = None
    rationale: str = ""
    expires_at: Moment | None = None


class FailureKind(StrEnum):
    """Why an agent gave no answer."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    NONSENSE = "nonsense"
    DIED = "died"
    UNLOADABLE = "unloadable"


class AgentFailure(Value):
    """An agent that gave no answer. That costs only its own vote."""

    agent_id: str
    error: str
    kind: FailureKind = FailureKind.RAISED


class Analysis(Value):
    """The answers of all agents in one cycle. Votes are signed: positive buys, negative sells, 0 abstains.

    `quarantined` maps an agent that was left out to the cycle that tries it again. `not_taken` maps a proposal from outside
    to the reason why it was ignored. `notes` go into the summary.
    """

    proposals: list[Proposal] = Field(default_factory=list)
    votes: dict[str, float] = Field(default_factory=dict)
    failures: list[AgentFailure] = Field(default_factory=list)
    quarantined: dict[str, int] = Field(default_factory=dict)
    not_taken: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def vote_of(proposals: Iterable[Proposal]) -> float:
    """An agent's vote: its strongest proposal, signed; 0 if it proposed nothing."""
    votes = [p.confidence if p.side is Side.BUY else -p.confidence for p in proposals]
    return max(votes, key=abs, default=0.0)


# --- from outside ---------------------------------------------------------------------------------------------------

MAX_RATIONALE_CHARS = 200
AGENT_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
DEFAULT_CYCLES = 2


_Number = Annotated[float, BeforeValidator(no_truth), Field(allow_inf_nan=False)]


class ProposalRequest(QuoteTerms):
    """The body of a proposal from outside. It expires at `expires_at`, or `ttl_seconds` after it was sent."""

    agent_id: Annotated[str, Field(pattern=AGENT_ID)]
    symbol: Annotated[str, AfterValidator(normalise_symbol)]
    side: Annotated[Side, BeforeValidator(upper)]
    confidence: Annotated[_Number, Field(ge=0, le=1)]
    expected_return: Annotated[_Number, Field(ge=-1, le=1)] | None = None
    rationale: Annotated[str, Field(max_length=MAX_RATIONALE_CHARS)] = ""
    expires_at: Moment | None = None
    ttl_seconds: Annotated[_Number, Field(gt=0, le=86_400)] | None = None

    def expiry(self, sent_at: datetime, cycle_seconds: float) -> datetime:
        """When it expires: two cycles after it was sent, unless it says otherwise."""
        seconds = DEFAULT_CYCLES * cycle_seconds if self.ttl_seconds is None else self.ttl_seconds
        lapse = sent_at + timedelta(seconds=seconds)
        if self.expires_at is None:
            return lapse
        return self.expires_at if self.ttl_seconds is None else min(self.expires_at, lapse)

    def proposal(self, proposal_id: str, expires_at: datetime) -> Proposal:
        """The proposal, as arbitration takes it."""
        facts = self.model_dump(exclude={"ttl_seconds", "expires_at"})
        return Proposal(proposal_id=proposal_id, expires_at=expires_at, **facts)


class WaitingProposal(Record):
    """A proposal from outside that the next cycle takes up, and the command under which it came."""

    command_id: str
    proposal: Proposal


REQUEST_FIELDS = frozenset(ProposalRequest.model_fields)


def read_request(fields: Mapping[str, Any]) -> ProposalRequest:
    """The request in these fields. Raises ValueError with a text for people."""
    try:
        return ProposalRequest.model_validate({name: fields[name] for name in REQUEST_FIELDS & fields.keys()})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = first["loc"][0] if first["loc"] else "the proposal"
        raise ValueError(f"{name}: {str(first['msg']).removeprefix('Value error, ')}") from None
