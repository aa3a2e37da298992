"""Runs rounds: opens a desk, lets clients and faults loose, heals everything, waits until nothing is left to do, and checks."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from tests.chaos import evidence
from tests.chaos.checker import check
from tests.chaos.clients import run_client
from tests.chaos.desk import Desk
from tests.chaos.earlier import Earlier
from tests.chaos.evidence import Evidence
from tests.chaos.faults import run_fault
from tests.chaos.forking import ROOT, Zygote
from tests.chaos.reading import Violation
from tests.chaos.recorder import Recorder
from tests.chaos.scenes import run_scene
from tests.chaos.schedule import SYMBOLS, Round, Step
from tests.chaos.servers import Postgres, Temporal
from tests.postgres import plain_url

SETTLE_SECONDS = 60.0
# Each of them has its row, and the machine has something else to do.
SIGNALS_A_SECOND = 40


@dataclass
class Result:
    """What became of a round."""

    plan: Round
    found: Evidence
    violations: list[Violation]
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def recovery(self) -> float | None:
        """How long it took after the last fault until nothing was left to do."""
        return None if self.found.settled_at is None else self.found.settled_at - self.found.healed_at


class Arena:
    """What rounds share: the stores, the zygote of one source tree, and that of an earlier release where one takes part."""

    played: ClassVar[int] = 0

    def __init__(
        self, temporal: Temporal, postgres: Postgres, zygote: Zygote, folder: Path, earlier: Zygote | None = None
    ) -> None:
        self.temporal, self.postgres, self.zygote, self.folder = temporal, postgres, zygote, folder
        self.earlier = earlier

    async def play(self, plan: Round) -> Result:
        """One round."""
        began = time.time()
        folder = self.folder / f"round-{plan.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        recorder = Recorder(folder / "record.ndjson")
        # Mutants play the same seeds on the same stores.
        Arena.played += 1
        name = f"round-{plan.seed}-{Arena.played}"
        desk = Desk(plan, self.zygote, self.temporal, self.postgres, folder, name, self.earlier)
        try:
            await desk.open()
            opened = time.time()
            found = Evidence(plan.seed, plan.live, plan.cycle_seconds, SYMBOLS, recorder.calls, recorder.notes)
            found.revoked_at = desk.revoked_at
            await _chaos(desk, recorder)
            await heal(desk, found)
            await evidence.collect(desk, found)
            settled = time.time()
        finally:
            recorder.close()
            await desk.close()
        evidence.save(found, folder / "evidence.json")
        result = Result(plan, found, check(found), time.time() - began)
        result.parts = {"open": opened - began, "chaos and settling": settled - opened, "close": time.time() - settled}
        return result


@contextlib.asynccontextmanager
async def arena(folder: Path, source: Path = ROOT, earlier: Earlier | None = None) -> AsyncIterator[Arena]:
    """The stores and the zygotes, all at once."""
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    temporal, zygote = Temporal(folder), Zygote(folder, source)
    before = Zygote(folder / "earlier", earlier.source, ("worker",)) if earlier else None
    zygotes = [zygote, before] if before else [zygote]
    temporal.start()
    async with asyncio.TaskGroup() as group:
        postgres = group.create_task(asyncio.to_thread(Postgres))
        for opening in (temporal.client(), *(each.open() for each in zygotes)):
            group.create_task(opening)
    try:
        yield Arena(temporal, postgres.result(), zygote, folder, before)
    finally:
        await asyncio.gather(*(each.close() for each in zygotes))
        temporal.kill()
        await asyncio.to_thread(postgres.result().stop)


async def _chaos(desk: Desk, recorder: Recorder) -> None:
    programs: dict[str, list[Step]] = defaultdict(list)
    for step in desk.plan.steps:
        # A person at the command line waits for the answer; that must not hold up another one.
        programs[step.client].append(step)
    async with asyncio.TaskGroup() as group:
        for steps in programs.values():
            group.create_task(run_client(desk, steps, recorder))
        for fault in desk.plan.faults:
            group.create_task(run_fault(desk, fault, recorder))
        group.create_task(run_scene(desk, recorder))


async def heal(desk: Desk, found: Evidence) -> None:
    """Everything works again, and then until nothing is left to do."""
    await desk.revive()
    found.healed_at = time.time()
    waited = desk.plan.scene.signals if desk.plan.scene else 0
    while time.time() < found.healed_at + SETTLE_SECONDS + waited / SIGNALS_A_SECOND:
        found.status = await desk.status()
        found.left = left_to_do(found.status) or await asyncio.to_thread(unwritten, desk)
        if not found.left:
            found.settled_at = time.time()
            return
        await asyncio.sleep(0.1)


def unwritten(desk: Desk) -> str:
    """Instructions whose outcome the database does not have yet: the status counts rows of the log alone."""
    url = plain_url(desk.postgres.url_of(desk.database))
    with psycopg.connect(url, connect_timeout=10) as connection:
        found = connection.execute("SELECT count(*) FROM instructions WHERE outcome IN ('prepared', 'unknown')")
        (count,) = found.fetchone() or (0,)
    return f"{count} instructions have no outcome in the database" if count else ""


def left_to_do(status: dict[str, Any] | None) -> str:
    """What a desk still owes, in words; nothing if it is settled."""
    if status is None:
        return "the coordinator does not answer"
    kill = status["kill"] or {}
    unfinished = {
        "signals or commands wait": status["commands_pending"] or status["proposals_waiting"],
        "rows are unwritten": status["records_waiting"],
        "instructions are open": status["open_instructions_total"],
        "orders are unknown": status["unknown_orders"],
        "a restart is under way": status["restart_pending"],
        "the run is ending": status["run_ending"],
        "the kill is not written": kill and not (kill["row_written"] and kill["latched"]),
        "the kill is not verified": kill and not (kill["quiet_at"] and kill["verified_at"]),
    }
    return "; ".join(what for what, is_so in unfinished.items() if is_so)
