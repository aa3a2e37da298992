"""Worker and API say at their start where their settings differ from what the desk carries; nothing waits for them."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

import settings
import worker
from api import app as api
from domain.desk.status import Status, status_of
from domain.desk.terms import configured_terms, warn_if_different
from startup import in_background, once_known
from tests.domain.builders import a_desk
from workflows.gateway import CoordinatorSilent

TOLD = "the settings differ from what the desk has: symbols BTCUSDT -> BTCUSDT,SOLUSDT. The desk keeps its own; to adopt these: "


class Answering:
    """Of the coordinator: nobody answers at first, then it does, or it hangs."""

    is_waited_for = False

    def __init__(self, failures: int = 1, hangs: bool = False) -> None:
        self.failures, self.hangs, self.asked = failures, hangs, 0

    async def recent_status(self, seconds: float) -> Status:
        assert seconds
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(600)
        if self.asked <= self.failures:
            raise CoordinatorSilent("nobody answers")
        return status_of(a_desk(symbols=["BTCUSDT"], cycle_seconds=5.0), "run")

    async def read(self, seconds: float) -> Any:
        return SimpleNamespace(status=await self.recent_status(seconds))


def of_worker(desk: settings.DeskSettings, answers: Any) -> AbstractAsyncContextManager[None]:
    return in_background(
        once_known(
            worker._looking(answers, 1.0), partial(warn_if_different, worker.log.warning, configured_terms(desk))
        )
    )


def of_api(desk: settings.DeskSettings, answers: Any) -> AbstractAsyncContextManager[None]:
    return in_background(
        once_known(api._looking(answers), partial(warn_if_different, api.log.warning, configured_terms(desk)))
    )


Process = Callable[[settings.DeskSettings, Any], AbstractAsyncContextManager[None]]


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("process", [of_worker, of_api])
@pytest.mark.parametrize(("symbols", "told"), [(("BTCUSDT", "SOLUSDT"), 1), (("BTCUSDT",), 0)])
async def test_settings_that_differ_are_logged_once_the_desk_answers(
    process: Process, symbols: tuple[str, ...], told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("startup.LAST_DELAY_SECONDS", 0.01)
    desk, answers = settings.DeskSettings(symbols=symbols, cycle_seconds=5.0), Answering()
    with capture_logs() as logs:
        async with process(desk, answers), asyncio.timeout(180):
            while answers.asked < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
    assert [entry["event"].startswith(TOLD) for entry in logs] == [True] * told


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("process", [of_worker, of_api])
async def test_a_desk_that_never_answers_holds_up_nothing(process: Process) -> None:
    async with asyncio.timeout(180):
        async with process(settings.DeskSettings(), Answering(hangs=True)):
            pass


async def test_a_loop_in_the_background_that_ends_by_an_error_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async with in_background(broken(), asyncio.sleep(0)), asyncio.timeout(180):
        while "a background loop failed" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "ValueError: a bug" in caplog.text
