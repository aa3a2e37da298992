"""Requests that schemathesis makes of the OpenAPI document, valid and invalid ones, to a desk that is well and to troubled ones.

Whatever comes, the answer is one that the document has: its status, content type and schema; 503 is the one error of a server.
`make soak` sends a hundred times as many, other ones each time.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.engine import events

from api.errors import ApiError, ReportsUnavailable
from domain.desk.states import State
from tests.api.world import AUTHORIZED, FakeGateway, World
from workflows.gateway import NoCoordinator, SignalRefused, SignalUnanswered, TemporalUnreachable

KILL = "POST /control/kill-switch"
TEMPORAL_IS_DOWN = TemporalUnreachable("connection refused")
# It judges by the lengths that the document has, and so takes any text for a symbol and any name for a limit.
NOT_CHECKED = ("positive_data_acceptance",)
PHASES = ("examples", "coverage", "fuzzing", "stateful")
# A body that may be left out may be `null` too; the document keeps silent about it, for the sake of generated clients.
MAY_BE_NULL = {f"POST /control/{name}" for name in ("cancel-all", "pause", "resume")}


def well(world: World) -> None:
    """Nothing is wrong."""


def killed(world: World) -> None:
    world.gateway.carried.state = State.KILLED


def temporal_is_down(world: World) -> None:
    gateway = world.gateway
    gateway.signal_error = gateway.query_error = gateway.open_error = gateway.cancel_error = TEMPORAL_IS_DOWN


def nobody_knows(world: World) -> None:
    world.gateway.signal_error = SignalUnanswered("no answer within 2 s")


def signals_are_refused(world: World) -> None:
    world.gateway.signal_error = SignalRefused("10,000 signals")
    world.gateway.query_error = NoCoordinator("main", None)


def database_is_down(world: World) -> None:
    world.reports.up = False
    world.reports.error = ReportsUnavailable(ConnectionRefusedError("connection refused"))


# The first ones in each run of the tests, the others too in the long one.
TROUBLES = [temporal_is_down, database_is_down, killed, nobody_knows, signals_are_refused]
IN_SHORT = 2
Trouble = Callable[[World], None]


@pytest.fixture(scope="module")
def served() -> World:
    made = World()
    # The fakes belong to no loop; schemathesis brings its own for each call.
    asyncio.run(made.app.router.lifespan_context(made.app).__aenter__())
    return made


class Fuzzed:
    """One run of schemathesis over all operations. Each call finds the desk anew, but in scenarios of several."""

    def __init__(
        self, world: World, trouble: Trouble, phases: tuple[str, ...], examples: int, fixed: bool = True
    ) -> None:
        self._world = world
        self._trouble = trouble
        self._renews = True
        self._schema = self._describe(phases, examples, fixed)
        self.calls = 0
        self.covered: set[str] = set()
        self.flaws: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application as schemathesis sees it."""
        if self._renews:
            self._world.gateway.renew()
            self._world.reports.renew()
            self._trouble(self._world)
        await self._world.app(scope, receive, send)

    def _describe(self, phases: tuple[str, ...], examples: int, fixed: bool) -> Any:
        # A stream has no end that could be waited for.
        schema = schemathesis.openapi.from_asgi("/openapi.json", self).exclude(path="/control/events")
        config = schema.config
        config.headers = dict(AUTHORIZED)
        config.generation.max_examples, config.generation.deterministic = examples, fixed
        config.generation.no_shrink = True
        config.checks.not_a_server_error.expected_statuses = ["2xx", "3xx", "4xx", "503"]
        for name in NOT_CHECKED:
            getattr(config.checks, name).enabled = False
        for name in PHASES:
            getattr(config.phases, name).enabled = name in phases
        return schema

    def run(self) -> "Fuzzed":
        for event in engine.from_schema(self._schema).execute():
            if isinstance(event, events.PhaseStarted):
                self._renews = event.phase.name.value != "stateful"
            elif isinstance(event, events.ScenarioFinished):
                self._take(event.recorder)
            elif isinstance(event, events.NonFatalError | events.FatalError):
                self.flaws.append(repr(event))
        return self

    def _take(self, recorder: Any) -> None:
        for case_id, node in recorder.cases.items():
            label = node.value.operation.label
            self.calls += 1
            self.covered.add(label)
            for check in recorder.checks.get(case_id, []):
                if check.failure_info and not is_meant(check.name, node.value):
                    self.flaws.append(f"{label}: {check.failure_info.failure}\n{node.value.as_curl_command()}")


def is_meant(check: str, case: Any) -> bool:
    """Whether it is taken although the document does not have it: a kill kills, and `null` is nothing."""
    return check == "negative_data_rejection" and (
        case.operation.label == KILL or (case.operation.label in MAY_BE_NULL and case.body is None)
    )


def assert_flawless(found: Fuzzed, document: Any) -> None:
    assert not found.flaws, "\n\n".join(found.flaws[:5])
    operations = {f"{method.upper()} {path}" for path, each in document["paths"].items() for method in each}
    assert found.covered == operations - {"GET /control/events"}


def test_a_desk_keeps_to_the_document(served: World) -> None:
    """Every boundary of every parameter by turns, and some at random."""
    found = Fuzzed(served, well, PHASES, examples=5).run()
    assert_flawless(found, served.app.openapi())
    assert found.calls > 500


@pytest.mark.parametrize("trouble", TROUBLES[:IN_SHORT], ids=lambda trouble: trouble.__name__)
def test_a_desk_in_trouble_keeps_to_the_document(served: World, trouble: Trouble) -> None:
    assert_flawless(Fuzzed(served, trouble, ("fuzzing",), examples=2).run(), served.app.openapi())


@pytest.mark.long
@pytest.mark.parametrize("trouble", [well, *TROUBLES], ids=lambda trouble: trouble.__name__)
def test_a_desk_keeps_to_the_document_for_long(served: World, trouble: Trouble) -> None:
    assert_flawless(Fuzzed(served, trouble, PHASES, examples=300, fixed=False).run(), served.app.openapi())


def test_the_fuzzing_sees_an_answer_that_the_document_does_not_have(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing of the above would mean anything."""
    monkeypatch.setattr(FakeGateway, "signal", _answers_as_nobody_does)
    found = Fuzzed(served, well, ("examples",), examples=1).run()
    assert {flaw.split(":")[0] for flaw in found.flaws} >= {KILL, *MAY_BE_NULL}


async def _answers_as_nobody_does(*_: Any) -> None:
    raise Teapot("short and stout")


class Teapot(ApiError):
    """An answer that no document has."""

    status = 418
