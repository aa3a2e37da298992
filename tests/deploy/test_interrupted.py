"""Ctrl-C while a command waits: the exit status and the sentence claim no more than is known by then."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli import audit_chain, audit_rebuild, desk, status
from tests.deploy.dev_stack import ais_here
from workflows.gateway import DeskGateway, SignalUnanswered, TemporalUnreachable

BASICS = {"AIS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "TEMPORAL_ADDRESS": "127.0.0.1:1"}


def _stopped(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


async def _stopped_waiting(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "where", "name"), [("verify", audit_chain, "verified"), ("rebuild", audit_rebuild, "rebuilt")]
)
def test_a_check_that_is_interrupted_proves_nothing_and_does_not_say_that_the_chain_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, where: Any, name: str
) -> None:
    # Found: it exited with 1, which scripts read as broken.
    monkeypatch.setattr(where, name, _stopped)
    done = ais_here("audit", command, cwd=tmp_path, **BASICS)
    assert done.returncode == 2
    assert done.stderr.endswith("could not be checked: it was interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "where", "name", "known"),
    [
        (("start",), desk, "start", "the desk was started"),
        (("restart", "--yes", "--reason", "over"), desk, "restart", "the desk was started"),
        (("limits", "max_leverage=1"), status, "set_limits", "the change was recorded"),
    ],
)
def test_a_command_that_may_have_taken_effect_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], where: Any, name: str, known: str
) -> None:
    monkeypatch.setattr(where, name, _stopped_waiting)
    done = ais_here(*arguments, cwd=tmp_path, **BASICS)
    assert done.returncode == 1
    assert done.stderr.startswith(f"you stopped waiting: it is not known whether {known}")


@pytest.mark.parametrize(("opened", "told"), [("PAUSED", "is paused in Temporal"), ("RUNNING", "no worker answered")])
def test_a_change_of_limits_that_nobody_carries_out_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str, told: str
) -> None:
    """Found: of a coordinator that is paused in Temporal it said that no worker answered, and a person started workers."""

    async def recorded(*_: Any) -> None:
        await asyncio.sleep(0)

    async def open_status(_: DeskGateway) -> str:
        await asyncio.sleep(0)
        return opened

    for name, answer in (("signal", recorded), ("settled", recorded), ("open_status", open_status)):
        monkeypatch.setattr(DeskGateway, name, answer)
    done = ais_here("limits", "max_leverage=1", cwd=tmp_path, **BASICS)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("recorded, not applied yet: ")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SignalUnanswered("Temporal did not answer: x"), "it is not known whether the change was recorded"),
        (TemporalUnreachable("Temporal cannot be reached"), "nothing was changed: Temporal cannot be reached"),
    ],
)
def test_a_change_of_limits_without_an_answer_says_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    async def signal(*_: Any) -> None:
        await asyncio.sleep(0)
        raise error

    monkeypatch.setattr(DeskGateway, "signal", signal)
    done = ais_here("limits", "max_leverage=1", cwd=tmp_path, **BASICS)
    assert (done.returncode, done.stderr.startswith(told)) == (1, True), done.stderr
