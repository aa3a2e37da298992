"""Free space, as the file systems themselves tell it."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from activities.agents import pool as agent_pool
from activities.agents.catalogue import InstalledAgent
from activities.agents.pool import AgentProcess
from activities.metrics import WorkerMetrics
from activities.observe import ObserveActivities
from domain.health.disks import DiskSpace, low
from storage import disks
from storage.disks import DiskWatch, free_space

GB = 1_000_000_000
FULL = DiskSpace(folder="full", free_bytes=GB - 1, size_bytes=2 * GB)
WIDE = DiskSpace(folder="wide", free_bytes=3 * GB, size_bytes=4 * GB)


def test_free_space_is_what_the_file_system_says(tmp_path: Path) -> None:
    (found,) = free_space([str(tmp_path)])
    said = os.statvfs(tmp_path)
    assert (found.folder, found.size_bytes) == (str(tmp_path), said.f_blocks * said.f_frsize)
    assert abs(found.free_bytes - said.f_bavail * said.f_frsize) < GB


def test_folders_on_one_file_system_are_one_and_what_cannot_be_seen_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    found = free_space([str(tmp_path / "gone"), str(tmp_path), str(tmp_path / "postgres")])
    assert [disk.folder for disk in found] == [str(tmp_path)]


@pytest.mark.parametrize(
    ("free", "size", "is_low"),
    [(100 * GB, 1000 * GB, False), (100 * GB - 1, 1000 * GB, True), (GB, 9 * GB, False), (GB - 1, 9 * GB, True)],
)
def test_under_10_percent_or_1_gb_is_low(free: int, size: int, is_low: bool) -> None:
    assert DiskSpace(folder="x", free_bytes=free, size_bytes=size).is_low is is_low


async def test_a_reading_carries_the_low_ones_and_gauges_have_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "free_space", lambda _: [FULL, WIDE])
    instruments = WorkerMetrics("main")
    nothing: Any = None
    observing = ObserveActivities(nothing, nothing, nothing, nothing, instruments, nothing, {}, DiskWatch(["."]))
    assert await observing._low_disks() == [FULL]
    for disk in (FULL, WIDE):
        labels = {"folder": disk.folder}
        assert instruments.registry.get_sample_value("ais_disk_free_bytes", labels) == disk.free_bytes
        assert instruments.registry.get_sample_value("ais_disk_size_bytes", labels) == disk.size_bytes


async def test_a_full_disk_stays_reported_while_no_file_system_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found to be false: where a network folder hung, the warning of the full disk beside it was gone."""
    hanging = threading.Event()
    monkeypatch.setattr(disks, "free_space", lambda _: [FULL])
    nothing: Any = None
    observing = ObserveActivities(
        nothing, nothing, nothing, nothing, WorkerMetrics("main"), nothing, {}, DiskWatch(["."])
    )
    assert await observing._low_disks() == [FULL]
    monkeypatch.setattr(disks, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(disks, "free_space", lambda _: hanging.wait(30) and [])
    assert await observing._low_disks() == [FULL]
    hanging.set()


def test_the_fullest_is_reported_first() -> None:
    found = low([DiskSpace(folder=str(n), free_bytes=n, size_bytes=GB) for n in (3, 1, 2, 9, 8)])
    assert [disk.folder for disk in found] == ["1", "2", "3"]


async def test_a_file_system_that_hangs_holds_up_nobody_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    looks: list[str] = []

    def hangs(folder: str) -> Any:
        looks.append(folder)
        answers.wait(30)
        return SimpleNamespace(f_bavail=1, f_blocks=1, f_frsize=1)

    monkeypatch.setattr(disks, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(os, "statvfs", hangs)
    watch = DiskWatch(["."])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await watch.look()
    assert looks == ["."]
    answers.set()


async def test_a_process_without_room_for_a_thread_reads_the_venue_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole reading failed, so that no kill was verified and no limit enforced."""

    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    nothing: Any = None
    observing = ObserveActivities(nothing, nothing, nothing, nothing, nothing, nothing, {}, DiskWatch(["."]))
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_room)
        assert await observing._low_disks() == []


async def test_what_hangs_takes_no_thread_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found to be false: with a hanging disk and agents whose processes did not start, the loop could look up no name, so the
    venue's connection could not be made again.
    """
    hanging, pools = threading.Event(), []

    class HangingPool:
        def __init__(self, **_: Any) -> None:
            pools.append(self)

        @property
        def active(self) -> bool:
            return hanging.wait()

    monkeypatch.setattr(disks, "free_space", lambda _: hanging.wait() and [])
    monkeypatch.setattr(agent_pool, "ProcessPool", HangingPool)
    loop = asyncio.get_running_loop()
    # As many as with one core.
    loop.set_default_executor(executor := ThreadPoolExecutor(5))
    agents = [AgentProcess(InstalledAgent(f"agent{number}", "nowhere:agent"), 1.0) for number in range(8)]
    loading = [asyncio.create_task(agent.load()) for agent in agents]
    with pytest.raises(TimeoutError):
        await DiskWatch(["."]).look()
    try:
        async with asyncio.timeout(60):
            while len(pools) < len(agents):
                await asyncio.sleep(0.01)
            await loop.run_in_executor(None, lambda: None)
    finally:
        for task in loading:
            task.cancel()
        hanging.set()
        await asyncio.gather(*loading, return_exceptions=True)
        loop.set_default_executor(ThreadPoolExecutor())
        executor.shutdown()
