"""Reading commands: whatever arrives can be read, and what cannot is named."""

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.desk.applying import apply
from domain.desk.carried import Outcome
from domain.desk.commands import CancelAll, Command, Source
from domain.desk.facts import FACTS
from domain.desk.payloads import RawPayload, kind_of, nearest_name, read_command
from domain.desk.states import CommandKind, State
from tests.domain.builders import a_desk, a_tick


def read(kind: CommandKind, *values: object) -> Command:
    return read_command(kind, [RawPayload("json/plain", json.dumps(value).encode()) for value in values], "fallback")


def test_nothing_at_all_is_a_command_with_its_default_reason() -> None:
    command = read(CommandKind.KILL)
    assert (command.command_id, command.reason, command.actor) == ("fallback", "manual kill switch", "temporal")
    assert command.source is Source.SIGNAL


def test_a_bare_string_is_the_reason() -> None:
    assert read(CommandKind.PAUSE, "lunch").reason == "lunch"


def test_an_object_gives_id_reason_and_actor() -> None:
    command = read(CommandKind.KILL, {"command_id": "a", "reason": "r", "actor": "http"})
    assert (command.command_id, command.reason, command.actor, command.source) == ("a", "r", "http", "operator")


def test_a_reason_is_cut_to_500_characters() -> None:
    assert len(read(CommandKind.KILL, "x" * 9000).reason) == 500


@pytest.mark.parametrize("pct", [True, "0.5", 0, -1, 1.01, None, [0.5]])
def test_a_fraction_outside_its_bounds_is_a_problem(pct: object) -> None:
    assert read(CommandKind.DELEVERAGE, {"symbol": "BTCUSDT", "reduce_pct": pct}).problem


def test_not_a_number_is_a_problem() -> None:
    payload = RawPayload("json/plain", b'{"symbol": "BTCUSDT", "reduce_pct": NaN}')
    assert read_command(CommandKind.DELEVERAGE, [payload], "f").problem


def test_an_unknown_field_never_widens_a_cancel() -> None:
    assert "unknown field 'symbol'" in (read(CommandKind.CANCEL_ALL, {"symbol": "BTCUSDT"}).problem or "")


@pytest.mark.parametrize("symbols", [[], "BTCUSDT", [1], [""]])
def test_symbols_that_are_no_list_of_symbols_are_a_problem(symbols: object) -> None:
    assert read(CommandKind.CANCEL_ALL, {"symbols": symbols}).problem


def test_symbols_are_matched_after_dropping_case_slash_dash_and_blanks() -> None:
    command = read(CommandKind.CANCEL_ALL, {"symbols": ["btc/usdt", "BTC-USDT", "eth usdt"]})
    assert isinstance(command, CancelAll)
    assert command.symbols == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("kind", sorted(FACTS))
def test_a_command_whose_facts_are_missing_is_refused(kind: CommandKind) -> None:
    desk = a_desk()
    if kind is CommandKind.RESTART:
        apply(desk, read(CommandKind.KILL), a_tick())
    apply(desk, Command(command_id="bare", kind=kind), a_tick())
    assert desk.commands["bare"].outcome is Outcome.REFUSED


@pytest.mark.parametrize(("name", "kind"), [(" KILL ", CommandKind.KILL), ("Pause", CommandKind.PAUSE), ("kil", None)])
def test_names_match_after_trimming_and_case_folding(name: str, kind: CommandKind | None) -> None:
    assert kind_of(name) is kind


@pytest.mark.parametrize(
    ("name", "nearest"), [("kil", "kill"), (" KILLL", "kill"), ("pasue", "pause"), ("resme", "resume")]
)
def test_an_unknown_name_has_a_nearest_one(name: str, nearest: str) -> None:
    assert nearest_name(name) == nearest


texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
payloads = st.lists(
    st.builds(RawPayload, st.sampled_from(["json/plain", "binary/null", "binary/plain", "x"]), st.binary())
    | st.builds(lambda v: RawPayload("json/plain", json.dumps(v).encode()), json_values)
    | st.builds(
        lambda v: RawPayload("json/plain", json.dumps(v).encode()),
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("command_id", "reason", "actor", "sent_at", "symbols", "symbol", "reduce_pct", "kill_number"),
                json_values,
            ),
        ),
    ),
    max_size=3,
)


@given(st.sampled_from(CommandKind), payloads)
def test_no_payload_can_break_the_reading_or_the_desk(kind: CommandKind, raw: list[RawPayload]) -> None:
    desk = a_desk()
    apply(desk, read_command(kind, raw, "fallback"), a_tick())
    assert (desk.state is State.KILLED) == (kind is CommandKind.KILL)
    assert len(desk.commands) == 1
    desk.model_dump_json()


@given(payloads)
def test_a_kill_kills_whatever_it_holds(raw: list[RawPayload]) -> None:
    desk = a_desk()
    apply(desk, read_command(CommandKind.KILL, raw, "fallback"), a_tick())
    assert desk.state is State.KILLED
    assert len(desk.cancels) == 2


@pytest.mark.parametrize("number", [b"1e99999999999999999999", b"1" * 5000, b"0." + b"3" * 5000])
def test_an_absurd_number_is_a_problem_and_still_a_kill(number: bytes) -> None:
    payload = RawPayload(
        "json/plain", b'{"symbol": "BTCUSDT", "reduce_pct": ' + number + b', "kill_number": ' + number + b"}"
    )
    assert read_command(CommandKind.DELEVERAGE, [payload], "f").problem
    assert read_command(CommandKind.KILL, [payload], "f").kind is CommandKind.KILL


def test_a_number_that_is_too_long_to_be_written_out_is_not() -> None:
    """4,000 kills with three of them took a new worker 5 s, most of it to write them out."""
    long = 10**4_200
    kill = read(CommandKind.KILL, {"command_id": long, "actor": long, "reason": [1, long]})
    assert (kill.command_id, kill.actor, kill.reason) == ("fallback", "temporal", '[1, "..."]')
    assert read(CommandKind.SET_LIMITS, {"limits": {"max_leverage": long}}).problem
    assert read(CommandKind.DELEVERAGE, {"symbol": "BTCUSDT", "reduce_pct": long}).problem


def test_a_reason_that_is_no_text_shows_its_beginning() -> None:
    told = json.dumps({"reason": {"rule": "drawdown", "values": [0.1, 2], "deep": [[[[]]]]}})
    assert reason_of(told) == '{"rule": "drawdown", "values": ["0.1", 2], "deep": [[[[]]]]}'
    assert reason_of(json.dumps({"reason": [1.5] * 5_000})).startswith("[1.5, 1.5, ")
    assert reason_of('{"reason": ' + "[" * 900 + "]" * 900 + "}") == "[" * 20 + '"..."' + "]" * 20


def reason_of(text: str) -> str:
    command = read_command(CommandKind.KILL, [RawPayload("json/plain", text.encode())], "c")
    assert command.problem is None
    return command.reason


@pytest.mark.parametrize("reason", [[1.5] * 12_000, {str(number): 1.5 for number in range(4_000)}])
def test_a_long_input_costs_little_more_than_to_decode_it(reason: object) -> None:
    """800 kills like these took a new worker 10 s, in a workflow task that may take 7.5."""
    data = json.dumps({"reason": reason}).encode()
    read = seconds(lambda: read_command(CommandKind.KILL, [RawPayload("json/plain", data)], "c"))
    assert read < 3 * seconds(lambda: json.loads(data))


def seconds(work: Callable[[], object]) -> float:
    """The least CPU time of several tries."""
    found = []
    for _ in range(10):
        began = time.process_time_ns()
        work()
        found.append(time.process_time_ns() - began)
    return min(found) / 1e9
