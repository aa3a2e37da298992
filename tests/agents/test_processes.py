"""Each agent in a process of its own: whatever one does there costs its own vote, and nothing else.

Real processes throughout. Time bounds end broken tests, and stand far from what is measured.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from activities.agents.catalogue import BUILT_IN, installed_agents, select
from activities.agents.pool import AgentPool
from activities.agents.runner import AgentAnswer
from domain.trading.proposals import FailureKind
from tests.agents.builders import BTC, install, install_plugin, seeing
from tests.house.sources import ROOT
from tests.processes import is_alive

LIMIT = 1.0
TROUBLE = ("good", "hangs", "hangs_in_c", "sleeps", "exits", "raises", "raises_its_own", "interrupts", "leaves", "silent",
           "floods", "writes", "dies_later", "leaves_a_thread")  # fmt: skip
SEEN = seeing({BTC: [100.0 - n for n in range(40)]})

WORKER = """
import asyncio, sys
with open("imported", "a") as note:
    note.write(__name__ + "\\n")
from activities.agents.catalogue import installed_agents, select
from activities.agents.pool import AgentPool
from tests.agents.builders import seeing

async def main():
    pool = AgentPool(select(installed_agents(), sys.argv[1:]), 3.0)
    # As a worker does: a cycle goes on without an agent that takes longer than a second to be imported.
    await pool.open()
    answers = await pool.ask(pool.names, seeing())
    print(len(answers), flush=True)
    await pool.close()

if __name__ == "__main__":
    asyncio.run(main())
"""


@asynccontextmanager
async def a_pool(site: Path, points: Mapping[str, str], *others: str) -> AsyncIterator[AgentPool]:
    install(site, "trouble", points)
    pool = AgentPool(select(installed_agents(), [*points, *others]), LIMIT)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: AgentPool) -> dict[str, AgentAnswer]:
    return {answer.agent_id: answer for answer in await pool.ask(pool.names, SEEN)}


def failures(answers: Mapping[str, AgentAnswer]) -> dict[str, tuple[FailureKind, str]]:
    # On a busy machine Pebble may find a process ended before it knows which call that had, and then loses the exit code.
    return {
        name: (a.failure.kind, re.sub(r" with exit code [36]$", "", a.failure.error))
        for name, a in answers.items()
        if a.failure
    }


def pid_of(answer: AgentAnswer) -> int:
    return int(answer.suggestions[0].rationale)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_each_failure_costs_its_own_vote_and_is_reported(site: Path) -> None:
    async with a_pool(site, {name: f"trouble:{name}" for name in TROUBLE}, *BUILT_IN) as pool:
        await pool.open()
        started = time.monotonic()
        answers = await ask(pool)
        took = time.monotonic() - started
        again = await ask(pool)

    slow = (FailureKind.TIMED_OUT, "it took longer than 1 s")
    assert failures(answers) == {
        "hangs": slow,
        "hangs_in_c": slow,
        "sleeps": slow,
        "exits": (FailureKind.DIED, "its process ended"),
        "raises": (FailureKind.RAISED, "ZeroDivisionError: division by zero" + "!" * 165),
        "raises_its_own": (FailureKind.RAISED, "_TwoArguments: (1, 2)"),
        "interrupts": (FailureKind.RAISED, "KeyboardInterrupt"),
        "leaves": (FailureKind.RAISED, "SystemExit: 4"),
        "silent": (FailureKind.NONSENSE, "it returned a NoneType, not a list of suggestions ([] abstains)"),
        "floods": (FailureKind.NONSENSE, "it made more than 100 suggestions"),
        "writes": (FailureKind.RAISED, "ValueError: assignment destination is read-only"),
    }
    assert [answers[name].suggestions != [] for name in ("good", "momentum")] == [True, True]
    # Three that hang were waited for at the same time, and not one after the other.
    assert took < 3 * LIMIT
    # The next round asks all of them again, in new processes where the old ones are gone.
    assert failures(again) == failures(answers)
    assert pid_of(again["good"]) == pid_of(answers["good"]) != os.getpid()


async def test_an_agent_keeps_its_process_and_its_instance(site: Path) -> None:
    async with a_pool(site, {"stateful": "trouble:Stateful"}) as pool:
        said = [(await ask(pool))["stateful"].suggestions[0].confidence for _ in range(3)]
    assert said == [0.1, 0.2, 0.3]


async def test_one_that_cannot_be_imported_costs_its_own_vote(site: Path) -> None:
    broken = {"gone": "no_such_module:agent", "ends": "ends_at_import:agent", "not_one": "trouble:NOT_AN_AGENT"}
    async with a_pool(site, {**broken, "good": "trouble:good"}) as pool:
        await pool.open()
        assert failures(await ask(pool)) == {
            "gone": (FailureKind.UNLOADABLE, "ModuleNotFoundError: No module named 'no_such_module'"),
            "ends": (FailureKind.UNLOADABLE, "importing it: its process ended"),
            "not_one": (FailureKind.UNLOADABLE, "NotAnAgent: trouble:NOT_AN_AGENT is a int, which cannot be called"),
        }


async def test_one_that_hangs_while_it_is_imported_does_not_hold_up_the_others(site: Path) -> None:
    async with a_pool(site, {"slow": "hangs_at_import:agent", "good": "trouble:good"}) as pool:
        async with asyncio.timeout(180):
            answers = await ask(pool)
        assert failures(answers) == {"slow": (FailureKind.TIMED_OUT, "it is still being imported")}


async def test_one_that_died_between_two_calls_is_started_again(site: Path) -> None:
    async with a_pool(site, {"good": "trouble:good"}) as pool:
        first = pid_of(await one_answered(pool, "good"))
        os.kill(first, signal.SIGKILL)
        await until(lambda: not is_alive(first))
        pids: list[int] = []

        async def answered() -> None:
            # The pool may find out while it is asked; that call is lost, and the next one is not.
            while not pids:
                answer = (await ask(pool))["good"]
                pids.extend([pid_of(answer)] if answer.failure is None else [])

        await asyncio.wait_for(answered(), 20)
    assert pids != [first]


async def test_one_that_hangs_between_two_calls_is_ended_and_started_again(site: Path) -> None:
    async with a_pool(site, {"later": "trouble:hangs_later"}) as pool:
        first = pid_of(await one_answered(pool, "later"))
        async with asyncio.timeout(180):
            while (answer := (await ask(pool))["later"]).failure is None:
                await asyncio.sleep(0.1)
        assert answer.failure.kind is FailureKind.TIMED_OUT
        assert pid_of(await one_answered(pool, "later")) != first
    await until(lambda: not is_alive(first))


async def test_what_an_agent_has_forked_holds_up_neither_the_other_agents_nor_the_end(site: Path) -> None:
    """Its child holds the pipe open into which the pool's thread writes: nothing would ever end that thread."""
    points = {"later": "trouble:hangs_later_with_a_child", "good": "trouble:good"}
    # More than a pipe takes.
    seen, children = seeing({f"S{n}USDT": [100.0] * 60 for n in range(60)} | {BTC: [100.0]}), list[int]()
    try:
        async with asyncio.timeout(180), a_pool(site, points) as pool:
            answer = await one_answered(pool, "later")
            children.append(int(answer.suggestions[1].rationale))
            for _ in range(2):
                while (answers := {a.agent_id: a for a in await pool.ask(pool.names, seen)})["later"].failure is None:
                    children.append(int(answers["later"].suggestions[1].rationale))
                    await asyncio.sleep(0.1)
                assert answers["good"].failure is None
    finally:
        for child in set(children):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


async def one_answered(pool: AgentPool, name: str) -> AgentAnswer:
    """The first answer of an agent: a process that has just been started on a busy machine may be late."""
    async with asyncio.timeout(180):
        while (answer := (await ask(pool))[name]).failure:
            pass
    return answer


async def test_calls_that_overlap_are_both_answered(site: Path) -> None:
    async with a_pool(site, {"good": "trouble:good"}) as pool:
        one, two = await asyncio.gather(ask(pool), ask(pool))
    assert pid_of(one["good"]) == pid_of(two["good"])


async def test_closing_ends_every_process(site: Path) -> None:
    async with a_pool(site, {"good": "trouble:good", "leaves_a_thread": "trouble:leaves_a_thread"}) as pool:
        pid = pid_of((await ask(pool))["good"])
        assert is_alive(pid)
    await until(lambda: not is_alive(pid))


async def test_a_room_that_was_never_asked_starts_nothing() -> None:
    pool = AgentPool(select(installed_agents(), ["all"]), LIMIT)
    before = len(psutil.Process().children(recursive=True))
    await pool.close()
    assert len(psutil.Process().children(recursive=True)) == before


def worker(site: Path, *agents: str) -> subprocess.Popen[str]:
    """A process of its own with a pool in it, as the real worker is."""
    (site / "worker_script.py").write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]), "LEAVE_PID_IN": str(site)}
    return subprocess.Popen(
        [sys.executable, "worker_script.py", *agents], cwd=site, env=environment, stdout=subprocess.PIPE, text=True
    )


async def test_no_agent_outlives_a_worker_that_was_killed(site: Path) -> None:
    """Not one that spins in C code with nobody left to end it, and not one with a thread that never ends."""
    names = ("hangs", "hangs_in_c", "leaves_a_thread")
    install(site, "trouble", {name: f"trouble:{name}" for name in names})
    with worker(site, *names) as killed:
        await until(lambda: all((site / name).exists() for name in names))
        pids = [int((site / name).read_text()) for name in names]
        assert all(map(is_alive, pids))
        killed.kill()
    await until(lambda: not any(map(is_alive, pids)))


def test_an_agents_process_does_not_import_the_program_that_started_it(site: Path) -> None:
    install_plugin(site)
    with worker(site, "rsi", "momentum") as started:
        printed, _ = started.communicate(timeout=180)
    assert (printed, started.returncode) == ("2\n", 0)
    assert (site / "imported").read_text() == "__main__\n"
