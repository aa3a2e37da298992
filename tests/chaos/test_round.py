"""Rounds: one short one in every run of the tests, ten of them with the long ones."""

import contextlib
import os
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

import tests.chaos.__main__ as rounds
from tests.chaos.report import Report
from tests.chaos.rounds import Arena, Result, arena
from tests.chaos.schedule import Round, plan
from tests.chaos.timeline import timeline


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    async with arena(tmp_path_factory.mktemp("chaos")) as made:
        yield made


def holds(result: Result) -> None:
    told = timeline(result.found, result.violations, around=2.0)
    assert not result.violations, f"make chaos ROUNDS=1 SEED={result.plan.seed}\n{told}"


async def test_a_desk_that_does_not_come_up_fails_the_rounds_and_ends_none_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Place:
        folder = tmp_path / "arena"

        async def play(self, planned: Round) -> Result:
            folder = self.folder / f"round-{planned.seed}"
            folder.mkdir(parents=True)
            (folder / "worker.log").write_text("why")
            raise AssertionError("not in 60 s")

    monkeypatch.setattr(rounds, "arena", lambda *_, **__: contextlib.nullcontext(Place()))
    (out := tmp_path / "out").mkdir()
    told = Namespace(rounds=2, seed=1, seconds=1.0, out=out, scene="", previous="none", signals=1)
    assert await rounds.run_rounds(told, tmp_path) == 1
    assert capsys.readouterr().out.count("BROKE: AssertionError: not in 60 s") == 2
    assert (tmp_path / "out/broken-1/worker.log").read_text() == "why"


async def test_a_short_round_holds(place: Arena, tmp_path: Path) -> None:
    result = await place.play(plan(int(os.environ.get("CHAOS_SEED", "11")), seconds=2.0, live=False))
    report = Report()
    report.add(result)
    report.picture(tmp_path / "report.png")
    assert report.calls.total() > 20
    assert "1 (0 of them live)" in report.table()
    assert report.as_json()
    holds(result)


async def test_a_full_disk_refuses_rows_until_there_is_room(place: Arena) -> None:
    server = place.postgres
    if not server.has_a_disk:
        pytest.skip("no file system can be mounted here")
    server.fill_disk()
    try:
        with pytest.raises(psycopg.errors.DiskFull):
            server.run("postgres", "CREATE TABLE full_disk AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
    finally:
        server.free_disk()
    server.run("postgres", "CREATE TABLE room AS SELECT 1", "DROP TABLE room")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
async def test_ten_rounds_hold(place: Arena, seed: int) -> None:
    holds(await place.play(plan(seed)))
