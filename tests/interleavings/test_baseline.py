"""What a few hundred programs come to is what they came to when the baseline was written."""

from typing import Any

from tests.interleavings.baseline import PREFIXES, result_of, stored

HOW = "if that is meant: .venv/bin/python -m tests.interleavings.baseline, and look at the diff"


def _differs(program: dict[str, Any]) -> str | None:
    now, then = result_of(program["terms"], program["steps"]), program["after"]
    changed = {name: f"{then[name]} -> {now[name]}" for name in now if now[name] != then[name]}
    return f"{program['begins']}, {program['steps']}: {changed}" if changed else None


def test_no_program_comes_to_something_else_than_before() -> None:
    differs = [text for program in stored() if (text := _differs(program))]
    assert not differs, f"{len(differs)} programs come to something else; {HOW}. The first: {differs[0]}"


def test_the_baseline_reaches_what_it_is_for() -> None:
    programs = stored()
    assert len(programs) >= 300
    assert {each["begins"] for each in programs} == {*PREFIXES}
    outcomes = {outcome for each in programs for outcome in each["after"]["outcomes"].values()}
    assert outcomes >= {"kill applied", "restart applied", "deleverage applied", "propose applied", "resume refused"}
    assert {phase for each in programs for phase in each["after"]["orders"]} == {"decided", "sending", "unknown"}
