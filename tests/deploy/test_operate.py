"""The operator's commands of `ais`, on a real Temporal server: what they do, what they say, and how they exit."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from cli import operate
from cli.dev.ports import free_port
from cli.operate import ExitCode, OperatorCommand, Result
from domain.desk.applying import apply
from domain.desk.carried import Outcome
from domain.desk.states import CommandKind, Mode, State
from domain.desk.status import CommandOutcome, status_of
from domain.trading.market import Observation, Position
from tests.deploy.dev_stack import ais, ais_here, clean_environment
from tests.domain.builders import NOW, a_command, a_desk, a_tick, an_observation
from tests.workflows.parts import Venue
from tests.workflows.world import Desk, World, running_desk
from workflows.gateway import NoCoordinator, SignalRefused, SignalUnanswered, TemporalUnreachable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address(temporal: Client, no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process finds the tests' Temporal by its settings, as `ais` does."""
    found = temporal.service_client.config.target_host
    monkeypatch.setenv("TEMPORAL_ADDRESS", found)
    return found


class Operator:
    """A person at the command line of one desk."""

    def __init__(self, desk: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIS_DESK", desk)
        self.said: list[str] = []

    def asks(self, kind: CommandKind, fields: Mapping[str, Any] | None = None) -> OperatorCommand:
        return OperatorCommand(kind, fields or {}, self.said.append)

    async def does(self, kind: CommandKind, wait_seconds: float = 0, **fields: Any) -> Result:
        return await self.asks(kind, fields).run(wait_seconds)


async def test_each_command_is_carried_out_and_says_so(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, World(Venue(position=Decimal("0.5"))), cycle_seconds=2) as desk:
        await desk.until(lambda s: s.observation is not None)
        person = Operator(desk.desk, monkeypatch)
        paused = await person.does(CommandKind.PAUSE, reason="lunch")
        assert (paused.code, await desk.state()) == (ExitCode.DONE, State.PAUSED)
        resumed = await person.does(CommandKind.RESUME)
        assert (resumed.code, await desk.state()) == (ExitCode.DONE, State.RUNNING)
        canceled = await person.does(CommandKind.CANCEL_ALL, symbols=["BTCUSDT"])
        assert (canceled.code, "BTCUSDT" in canceled.text) == (ExitCode.DONE, True)
        reduced = await person.does(CommandKind.DELEVERAGE, symbol="BTCUSDT", reduce_pct=0.5)
        assert (reduced.code, reduced.text) == (
            ExitCode.DONE,
            f"desk {desk.desk!r}: the order that reduces BTCUSDT is done",
        )
        assert desk.world.venue.position == Decimal("0.25")
        assert paused.outcome is not None
        assert paused.outcome.actor.startswith("cli:")


async def test_a_kill_waits_until_it_is_verified(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        await desk.until(lambda s: s.observation is not None)
        person = Operator(desk.desk, monkeypatch)
        killed = await person.does(CommandKind.KILL, wait_seconds=60, reason="flash crash")
        status = await desk.status()
        assert killed.code is ExitCode.DONE
        assert status.kill is not None
        assert status.kill.verified_at is not None
        assert status.kill.reason == "flash crash"
        assert "and verified" in killed.text
        refused = await person.does(CommandKind.RESUME)
        assert (refused.code, refused.text.startswith("refused:")) == (ExitCode.REFUSED, True)
        again = await person.does(CommandKind.KILL, wait_seconds=60)
        assert again.code is ExitCode.DONE


async def test_a_kill_that_no_venue_confirms_is_not_called_verified(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(Venue(up=False))
    async with running_desk(temporal, world, cycle_seconds=2) as desk:
        killed = await Operator(desk.desk, monkeypatch).does(CommandKind.KILL, wait_seconds=2)
        assert killed.code is ExitCode.RECORDED
        assert killed.text.startswith(f"after 2 s: desk {desk.desk!r} is killed, but the kill is not over yet")


@pytest.mark.parametrize("name", ["reason", "actor"])
async def test_a_byte_of_another_encoding_holds_no_kill_up(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with running_desk(temporal, cycle_seconds=2) as desk:
        killed = await Operator(desk.desk, monkeypatch).asks(CommandKind.KILL, {name: "St\udcf6rung"}).run()
        assert (killed.code, await desk.state()) == (ExitCode.DONE, State.KILLED)
        assert "St?rung" in ((await desk.status()).reason, (await desk.status()).actor)


async def test_in_shadow_a_kill_has_nothing_to_verify(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, cycle_seconds=2, mode=Mode.SHADOW) as desk:
        killed = await Operator(desk.desk, monkeypatch).does(CommandKind.KILL, wait_seconds=60)
        assert (killed.code, "shadow" in killed.text) == (ExitCode.DONE, True)


@pytest.mark.parametrize("kind", [CommandKind.KILL, CommandKind.PAUSE])
async def test_without_a_worker_a_command_is_recorded_and_not_more(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch, kind: CommandKind
) -> None:
    monkeypatch.setattr(operate, "OUTCOME_SECONDS", 0.5)
    monkeypatch.setattr(operate, "QUERY_SECONDS", 0.5)
    desk = Desk(temporal, World())
    await desk.start()
    person = Operator(desk.desk, monkeypatch)
    command = person.asks(kind)
    result = await command.run(30)
    assert (result.code, "not confirmed" in result.text) == (ExitCode.RECORDED, True)
    assert command.interrupted().code is ExitCode.RECORDED
    assert "no worker has answered for the coordinator" in command.interrupted().text
    assert ("cancel them at the venue by hand" in result.text) is (kind is CommandKind.KILL)
    assert json.loads(operate.as_json(command, kind, result))["result"] == "recorded"
    await desk.handle.terminate("the test is over")


async def test_of_a_desk_that_never_ran_nothing_is_sent(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (CommandKind.KILL, CommandKind.PAUSE):
        result = await Operator("nowhere", monkeypatch).does(kind)
        assert (result.code, result.text.startswith("nothing was sent")) == (ExitCode.REFUSED, True)
        # Who wants to stop is not told how to start.
        assert ("ais start" in result.text) is (kind is CommandKind.PAUSE)


class Scripted:
    """A gateway that answers each call by its turn in a script; what is no error is returned."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = script
        self.workflow_id = "coordinator-main"

    async def _next(self, call: str) -> Any:
        turn = self.script[call].pop(0)
        if isinstance(turn, Exception):
            raise turn
        return await turn() if callable(turn) else turn

    async def signal(self, *_: object) -> None:
        await self._next("signal")

    async def request_cancel(self, *_: object) -> None:
        await self._next("request_cancel")

    async def settled(self, *_: object) -> Any:
        return await self._next("settled")

    async def status(self) -> Any:
        return await self._next("status")

    async def open_status(self) -> Any:
        return await self._next("open_status") if "open_status" in self.script else "RUNNING"


@pytest.fixture
def scripted(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OperatorCommand]:
    """A command of this kind, over a gateway that follows the script."""
    monkeypatch.setattr(operate, "RETRY_SECONDS", 0)

    def make(kind: CommandKind, say: Callable[[str], None] = lambda text: None, **script: list[Any]) -> OperatorCommand:
        monkeypatch.setattr(operate, "DeskGateway", lambda *_, **__: Scripted(**script))
        return OperatorCommand(kind, {}, say)

    return make


class Stopped(BaseException):
    """A person presses Ctrl-C."""


async def ctrl_c() -> None:
    raise Stopped


AWAY, UNANSWERED, BUSY = TemporalUnreachable("away"), SignalUnanswered("no answer"), SignalRefused("busy")
CLOSED = NoCoordinator("main", "TERMINATED")


@pytest.mark.parametrize(
    "script",
    [
        {"signal": [UNANSWERED, AWAY, ctrl_c]},
        {"signal": [UNANSWERED, ctrl_c]},
        {"signal": [BUSY, AWAY, ctrl_c], "request_cancel": [UNANSWERED]},
        {"signal": [BUSY], "request_cancel": [ctrl_c]},
    ],
)
async def test_a_kill_that_may_be_recorded_is_never_told_as_not_sent(
    scripted: Callable[..., OperatorCommand], script: dict[str, list[Any]]
) -> None:
    said = list[str]()
    command = scripted(CommandKind.KILL, said.append, **script)
    with pytest.raises(Stopped):
        await command.run()
    assert command.interrupted().code is ExitCode.UNKNOWN
    # What was told while nothing had been recorded may say so; the newest says what is known.
    assert said[-1:] == [] or said[-1].startswith("NOT KNOWN WHETHER KILLED")


async def test_an_unanswered_kill_whose_coordinator_is_gone_is_not_told_as_not_sent(
    scripted: Callable[..., OperatorCommand],
) -> None:
    result = await scripted(CommandKind.KILL, signal=[UNANSWERED, CLOSED]).run()
    assert (result.code, "stay at the venue" in result.text) == (ExitCode.UNKNOWN, True)
    assert "restart" not in result.text


async def test_a_kill_that_temporal_refuses_goes_on_and_says_what_else_can_be_done(
    scripted: Callable[..., OperatorCommand],
) -> None:
    said: list[str] = []
    busy = scripted(
        CommandKind.KILL, said.append, signal=[BUSY, BUSY, None], request_cancel=[BUSY, AWAY], settled=[None]
    )
    result = await busy.run()
    assert (result.code, "not confirmed" in result.text) == (ExitCode.RECORDED, True)
    assert said[0].startswith("NOT KILLED YET")


async def test_a_recorded_command_whose_coordinator_closes_is_promised_to_nobody(
    scripted: Callable[..., OperatorCommand],
) -> None:
    result = await scripted(CommandKind.KILL, signal=[None], settled=[CLOSED]).run()
    assert (result.code, "no coordinator will carry the command out" in result.text) == (ExitCode.UNKNOWN, True)


async def test_a_command_to_a_coordinator_that_is_paused_in_temporal_says_what_it_waits_for(
    scripted: Callable[..., OperatorCommand],
) -> None:
    """It said that the kill takes effect once a worker runs."""
    result = await scripted(CommandKind.KILL, signal=[None], settled=[None], open_status=["PAUSED"]).run()
    assert (result.code, "temporal workflow unpause" in result.text) == (ExitCode.RECORDED, True)
    assert "once a worker runs" not in result.text


async def test_an_unanswered_deleverage_is_not_to_be_repeated_blindly(scripted: Callable[..., OperatorCommand]) -> None:
    result = await scripted(CommandKind.DELEVERAGE, signal=[UNANSWERED]).run()
    assert (result.code, "before you repeat it" in result.text) == (ExitCode.UNKNOWN, True)


async def test_a_kill_that_was_carried_out_before_its_coordinator_closed_is_told_as_killed(
    scripted: Callable[..., OperatorCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = scripted(CommandKind.KILL, signal=[None], settled=[None], status=[CLOSED])
    monkeypatch.setattr(command, "_outcome", an_outcome(CommandKind.KILL))
    result = await command.run(30)
    assert (result.code, "was killed, but its coordinator closed before" in result.text) == (ExitCode.RECORDED, True)


async def test_a_kill_that_flattens_is_done_once_the_desk_is_flat(
    scripted: Callable[..., OperatorCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = a_desk()
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    assert desk.kill
    desk.kill.flattens, desk.kill.verified_at = True, NOW
    verified = status_of(desk, "run")
    desk.kill.flat_at = NOW
    said: list[str] = []
    monkeypatch.setattr(operate, "POLL_SECONDS", 0)
    script = {"signal": [None], "settled": [None], "status": [verified, status_of(desk, "run")]}
    command = scripted(CommandKind.KILL, said.append, **script)
    monkeypatch.setattr(command, "_outcome", an_outcome(CommandKind.KILL))
    result = await command.run(30)
    assert (result.code, len([text for text in said if "; outstanding: " in text])) == (ExitCode.DONE, 1)


@pytest.mark.parametrize(
    ("observed", "told"),
    [
        (None, "the next cycle reads them"),
        (timedelta(seconds=-1), "the next cycle reads them"),
        (timedelta(seconds=1), "BTCUSDT 0.5"),
    ],
)
def test_positions_are_told_only_from_a_reading_since_the_kill_was_verified(
    observed: timedelta | None, told: str
) -> None:
    observation = None if observed is None else held(NOW + observed)
    desk = a_desk(observation=observation)
    apply(desk, a_command(CommandKind.KILL, "k"), a_tick())
    assert desk.kill
    desk.kill.verified_at = NOW
    status = status_of(desk, "run")
    assert status.kill
    assert told in operate._positions(status, status.kill)


def held(at: datetime) -> Observation:
    position = Position(symbol="BTCUSDT", quantity=Decimal("0.5"), entry_price=Decimal(1), mark_price=Decimal(1))
    return an_observation(positions=[position], observed_at=at)


def an_outcome(kind: CommandKind) -> CommandOutcome:
    return CommandOutcome(
        command_id="c", command=kind, outcome=Outcome.APPLIED, at=NOW, actor="a", reason="r", fingerprint="f"
    )


def test_a_deleverage_that_was_filled_in_part_is_not_told_as_done() -> None:
    facts = {"symbol": "BTCUSDT", "detail": "0.05 of 0.125 was filled: the book was empty"}
    told = operate._applied_text("main", an_outcome(CommandKind.DELEVERAGE).model_copy(update=facts), None)
    assert told == f"desk 'main': the order that reduces BTCUSDT is done in part. {facts['detail']}"


async def test_a_closed_pipe_ends_no_kill(scripted: Callable[..., OperatorCommand]) -> None:
    def say(_text: str) -> None:
        raise BrokenPipeError

    result = await scripted(CommandKind.KILL, say, signal=[AWAY, None], settled=[None]).run()
    assert result.code is ExitCode.RECORDED


async def test_a_desk_that_was_restarted_meanwhile_is_not_called_killed(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_desk(temporal, World(Venue(up=False)), cycle_seconds=2) as desk:
        person = Operator(desk.desk, monkeypatch)
        kill = asyncio.create_task(person.does(CommandKind.KILL, wait_seconds=90))
        status = await desk.until(lambda s: s.kill and s.kill.latched and s.kill.row_written)
        while not any("outstanding" in text for text in person.said):
            await asyncio.sleep(0.02)
        await desk.signal("restart", {"kill_number": status.kill_number, "actor": "t", "reason": "r"})
        result = await kill
        assert (result.code, result.text.startswith("NO LONGER KILLED")) == (ExitCode.RECORDED, True)


@pytest.mark.parametrize("wrong", ["AIS_CYCLE_SECONDS", "AIS_SYMBOLS"])
def test_a_kill_needs_no_setting_but_the_desks_name(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(wrong, "?")
    monkeypatch.setenv("AIS_DESK", "night")
    assert OperatorCommand(CommandKind.KILL, {}, print).desk == "night"


@contextlib.asynccontextmanager
async def way_to(address: str, port: int) -> AsyncIterator[None]:
    """The port leads to this address."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, number = address.rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(number))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_a_kill_is_tried_until_temporal_answers_and_says_at_once_what_else_can_be_done(
    temporal: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with running_desk(temporal, cycle_seconds=2) as desk:
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
        person = Operator(desk.desk, monkeypatch)
        command = person.asks(CommandKind.KILL)
        kill = asyncio.create_task(command.run(60))
        while not person.said:
            await asyncio.sleep(0.02)
        assert person.said[0].startswith("NOT KILLED YET")
        assert f"temporal workflow cancel --workflow-id coordinator-{desk.desk}" in person.said[0]
        assert command.interrupted() == (ExitCode.REFUSED, "nothing was sent: you stopped waiting", None, None)
        async with way_to(address, port):
            result = await kill
        assert (result.code, await desk.state()) == (ExitCode.DONE, State.KILLED)


async def test_a_pause_while_temporal_is_away_says_that_nothing_was_sent(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{free_port()}")
    result = await Operator("main", monkeypatch).does(CommandKind.PAUSE)
    assert (result.code, result.text.startswith("nothing was sent: Temporal cannot be reached")) == (
        ExitCode.REFUSED,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["deleverage", "BTCUSDT", "50"], 2, "50% or 0.5"),
        (["deleverage", "BTCUSDT"], 2, "SHARE"),
        (["deleverage", "BTCUSDT", "nan"], 2, "50% or 0.5"),
        (["pause", "--desk", ""], 2, "must not be empty"),
        (["pause"], 1, "nothing was sent: Temporal cannot be reached"),
    ],
)
def test_the_exit_status_of_the_process(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    # One with a process of its own.
    run = ais if arguments == ["pause"] else ais_here
    done = run(*arguments, cwd=tmp_path, TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_full_disk_under_its_output_keeps_no_kill_back(temporal: Client, address: str, tmp_path: Path) -> None:
    """What cannot be printed is a warning about a setting first, then the progress, then the result."""
    async with running_desk(temporal, cycle_seconds=2) as desk:
        await desk.until(lambda s: s.observation is not None)
        environment = clean_environment() | {
            "TEMPORAL_ADDRESS": address,
            "PYTHONPATH": str(ROOT),
            "AIS_NO_SETTING": "1",
        }
        with open("/dev/full", "w") as full:
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-m", "cli", "kill", "--desk", desk.desk],
                cwd=tmp_path, env=environment, stdout=full, stderr=full, timeout=120, check=False,
            )  # fmt: skip
        assert (done.returncode, await desk.state()) == (0, State.KILLED)
