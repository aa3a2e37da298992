"""The activity `observe` decides beside its reading: quickly or not at all, and no agent is asked twice for it."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from activities import observe as module
from activities.agents.port import Arguments
from activities.agents.runner import AgentAnswer
from activities.calls import DecideCall, ObserveAnswer, ObserveCall, Scope
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from activities.venues.port import VenueUnavailable
from domain.desk.ahead import DecisionFacts
from domain.desk.states import Mode
from domain.risk.limits import Limits
from domain.trading.market import MarketView, Observation
from tests.agents.builders import BTC, some_bars
from tests.domain.builders import an_observation

SCOPE = Scope(desk="main", mode=Mode.PAPER)
FACTS = DecisionFacts(blocked={}, cycle=7)


class Venue:
    """It may fail to give bars so many times."""

    counts_its_calls = True

    def __init__(self) -> None:
        self.fails, self.seen = 0, an_observation()

    async def observe(self, *_: Any) -> Observation:
        return self.seen

    async def markets(self, symbols: Sequence[str], bars: int) -> dict[str, MarketView]:
        if self.fails:
            self.fails -= 1
            raise VenueUnavailable("no bars")
        return {symbol: MarketView(bars=some_bars([100.0] * 30)) for symbol in symbols}


class Agents:
    """One agent that answers once the gate is open."""

    names = ("slow",)

    def __init__(self) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, names: Iterable[str], _: Arguments) -> list[AgentAnswer]:
        self.asked += 1
        await self.gate.wait()
        return [AgentAnswer(name, [], None, 0.0) for name in names]


class NoDesk:
    """A database without a row of the desk."""

    async def run(self, work: Any, _: float) -> Any:
        return "db", None, None


class Worker:
    """The two activities of one worker, with calls as a coordinator makes them."""

    def __init__(self) -> None:
        self.venue, self.agents, numbers = Venue(), Agents(), itertools.count()
        venue, database, self.metrics = self.venue, NoDesk(), WorkerMetrics("main")
        self.activities = ObserveActivities(
            SCOPE, venue, database, self.agents, self.metrics, lambda prefix: f"{prefix}_{next(numbers)}"  # type: ignore[arg-type]
        )  # fmt: skip

    async def observe(self, **changes: Any) -> ObserveAnswer:
        facts = {"symbols": [BTC], "cycle_id": "c/7", "limits": Limits(), "decides": FACTS} | changes
        answer = await self.activities.observe(ObserveCall(scope=SCOPE, **facts))
        # As Temporal hands it on.
        return ObserveAnswer.model_validate_json(answer.model_dump_json())

    async def decide(self, answer: ObserveAnswer, **changes: Any) -> Any:
        # By then the coordinator knows when it was in its database.
        scope = SCOPE.model_copy(update={"database_seen_at": answer.observed_at, "database_id": "db"})
        facts = vars(FACTS) | {"observation": answer.split.observation, "limits": Limits()} | changes
        call = DecideCall(scope=scope, symbols=[BTC], **facts)
        return await self.activities.decide(DecideCall.model_validate_json(call.model_dump_json()))

    @property
    def early(self) -> Any:
        """The decision that was begun beside the reading."""
        return self.activities._early

    def answered(self) -> float | None:
        return self.metrics.registry.get_sample_value("ais_agent_latency_seconds_count", {"agent_id": "slow"})


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_SECONDS", 0.05)


async def test_a_choice_comes_with_the_reading_and_is_counted_as_a_decision_is() -> None:
    worker = Worker()
    answer = await worker.observe()
    assert answer.choice is not None
    assert answer.choice.votes == {"slow": 0.0}
    assert (worker.agents.asked, worker.answered()) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [{"decides": None}, {"limits": None}],
    ids=["an older coordinator", "without limits"],
)
async def test_nobody_is_asked_where_no_choice_is_wanted(changes: dict[str, Any]) -> None:
    worker = Worker()
    assert (await worker.observe(**changes)).choice is None
    assert worker.agents.asked == 0


async def test_nobody_is_asked_about_a_doubtful_reading() -> None:
    worker = Worker()
    worker.venue.seen = an_observation(doubts=["two sources differ"])
    assert (await worker.observe()).choice is None
    assert worker.agents.asked == 0


async def test_nobody_is_asked_where_the_reading_itself_took_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWERED_BY_SECONDS", 0.0)
    worker = Worker()
    assert (await worker.observe()).choice is None
    assert worker.agents.asked == 0


@pytest.mark.usefixtures("hurried")
async def test_slow_agents_hold_up_no_reading_and_are_asked_once() -> None:
    worker = Worker()
    worker.agents.gate.clear()
    answer = await worker.observe()
    assert answer.choice is None
    deciding = asyncio.create_task(worker.decide(answer))
    worker.agents.gate.set()
    assert (await deciding).votes == {"slow": 0.0}
    assert (worker.agents.asked, worker.answered()) == (1, 1)
    # Another attempt at it, should the answer be lost on its way, asks them.
    await worker.decide(answer)
    assert worker.agents.asked == 2


@pytest.mark.usefixtures("hurried")
async def test_what_agents_said_too_late_serves_no_other_decision() -> None:
    worker = Worker()
    worker.agents.gate.clear()
    answer = await worker.observe()
    worker.agents.gate.set()
    assert (await worker.decide(answer, limits=Limits(max_leverage="1"))).votes == {"slow": 0.0}
    assert worker.agents.asked == 2


@pytest.mark.usefixtures("hurried")
async def test_an_answer_that_was_there_before_anybody_asked_for_it_is_not_used() -> None:
    """How old the data are was judged then."""
    worker = Worker()
    worker.agents.gate.clear()
    answer = await worker.observe()
    worker.agents.gate.set()
    await asyncio.wait({worker.early.choosing})
    await worker.decide(answer)
    assert worker.agents.asked == 2


@pytest.mark.usefixtures("hurried")
async def test_other_questions_wait_until_the_agents_have_answered() -> None:
    """Each agent has one process: a second question would use up its time behind the first."""
    worker = Worker()
    worker.agents.gate.clear()
    answer = await worker.observe()
    deciding = asyncio.create_task(worker.decide(answer, limits=Limits(max_leverage="1")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert worker.agents.asked == 1
    worker.agents.gate.set()
    await deciding
    assert worker.agents.asked == 2


@pytest.mark.usefixtures("hurried")
async def test_the_next_reading_asks_no_agents_that_are_still_busy_with_the_last_one() -> None:
    worker = Worker()
    worker.agents.gate.clear()
    first = await worker.observe()
    worker.venue.seen = an_observation(observed_at=first.observed_at + timedelta(seconds=1))
    answer = await worker.observe()
    assert (answer.choice, worker.agents.asked) == (None, 1)
    worker.agents.gate.set()
    assert (await worker.decide(answer)).votes == {"slow": 0.0}
    assert worker.agents.asked == 2


@pytest.mark.usefixtures("hurried")
async def test_a_decision_that_was_cancelled_is_asked_for_anew() -> None:
    worker = Worker()
    worker.agents.gate.clear()
    answer = await worker.observe()
    deciding = asyncio.create_task(worker.decide(answer))
    worker.early.choosing.cancel()
    worker.agents.gate.set()
    assert (await deciding).votes == {"slow": 0.0}
    assert worker.agents.asked == 2


async def test_a_decision_that_fails_leaves_a_good_reading_good() -> None:
    worker = Worker()
    worker.venue.fails = 1
    answer = await worker.observe()
    assert (answer.choice, answer.observed_at) == (None, worker.venue.seen.observed_at)
    assert (await worker.decide(answer)).votes == {"slow": 0.0}


def test_a_reading_and_its_choice_are_told_apart_again() -> None:
    seen = an_observation()
    assert ObserveAnswer.of(seen, None).split == (seen, None)
    assert type(ObserveAnswer.of(seen, None).split.observation) is Observation


def test_coordinators_and_workers_of_different_releases_read_each_other() -> None:
    """An older worker knows nothing of `decides`, an older coordinator nothing of `choice`."""
    answer = ObserveAnswer.of(an_observation(), None).model_dump_json()
    assert Observation.model_validate_json(answer) == an_observation()
    assert ObserveAnswer.model_validate_json(an_observation().model_dump_json()).choice is None
    old = ObserveCall(scope=SCOPE, symbols=[BTC], cycle_id="c").model_dump_json(exclude={"decides"})
    assert ObserveCall.model_validate_json(old).decides is None
