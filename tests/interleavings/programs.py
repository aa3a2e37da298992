"""Random programs: the next step is drawn from what may happen now, so that few are wasted."""

import random
from collections.abc import Callable
from typing import Any

from tests.interleavings.rehearsal import Rehearsal, Step

KINDS = ["pause", "resume", "resume", "resume", "resume", "kill", "cancel_all", "deleverage", "deleverage", "restart"]
KINDS += ["set_limits", "propose", "propose", "kil"]
USUAL = {
    "observe": ["flat"] * 8 + ["long"] * 8 + ["flat with buy BTC", "long with quote at 98"] * 6,
    "decide": ["buy BTC", "quote at 98"] * 2,
    "commit": ["done"] * 4,
}
Pick = Callable[[Any], Any]


def a_signal(desk: Rehearsal, pick: Pick) -> list[Any]:
    """A signal, with an id of few, so that the same one comes twice, with the same facts and with others."""
    name = pick(KINDS + ["restart"] * 9 if desk.run.c.kill and desk.run.c.latched else KINDS)
    payload: dict[str, Any] = {"command_id": f"c{pick(range(40))}", "reason": pick(["", "r"])}
    match name:
        case "cancel_all":
            payload |= pick([{}, {"symbols": ["BTCUSDT"]}, {"symbols": ["DOGEUSDT"]}])
        case "deleverage":
            payload |= {"symbol": pick(["BTCUSDT", "ETHUSDT"]), "reduce_pct": pick([0.5, 1, 2])}
        case "restart":
            payload["kill_number"] = desk.run.c.kill_number - pick([0, 0, 0, 1])
        case "set_limits":
            payload["limits"] = pick([{"order_fraction": "0.04"}, {"order_fraction": "0.06"}, {"max_leverage": "x"}])
        case "propose":
            payload |= {"agent_id": pick(["a", "b"]), "symbol": "BTCUSDT", "side": "BUY", "confidence": 0.5}
            payload |= pick([{}, {"ttl_seconds": 0.3}, {"price": 99}])
    if pick([True] * 5 + [False]):
        return [name, payload]
    # Nobody chose an id, or the input is no command at all.
    return [name, pick([{}, None, "words", {"kill_number": 1}, {"sent_at": "2026-03-10T00:00:00+00:00"}])]


def a_cycle_answer(desk: Rehearsal, pick: Pick) -> str:
    """An answer to what the cycle waits for, more often one after which it goes on."""
    usual = USUAL.get(desk.run.request.name, []) if desk.run.request else []
    word: str = pick([*desk.cycle_words(), *usual])
    return word


def a_step(desk: Rehearsal, pick: Pick) -> Step:
    """What happens next."""
    makers = _makers(desk, pick)
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight) if kind in makers]
    return makers[pick(kinds)]()


# How often each comes up, as long as it can happen.
WEIGHTS = {"turn": 4, "wait": 1, "late": 1, "cycle": 9, "begin": 4, "end": 6, "read latch": 3, "continue": 2}


def _makers(desk: Rehearsal, pick: Pick) -> dict[str, Callable[[], Step]]:
    """What can happen now, and how such a step is made."""
    due, under_way = desk.run.lanes.due(), list(desk.run.lanes.under_way)
    can: dict[str, tuple[bool, Callable[[], Step]]] = {
        "turn": (True, lambda: ["turn", [a_signal(desk, pick) for _ in range(pick([1, 1, 1, 2]))]]),
        "wait": (True, lambda: _something_rare(pick)),
        "late": (bool(desk.written), lambda: ["late", pick(range(5))]),
        "cycle": (bool(desk.cycle_words()), lambda: ["cycle", a_cycle_answer(desk, pick)]),
        "begin": (bool(due), lambda: ["begin", pick(due)]),
        "end": (bool(under_way), lambda: _an_answer(desk, pick(under_way), pick)),
        "read latch": (desk.run.reads_latch, lambda: ["read latch", pick(["read", "away"])]),
        "continue": (not under_way and not desk.run.request, lambda: ["continue"]),
    }
    return {kind: make for kind, (possible, make) in can.items() if possible}


def _an_answer(desk: Rehearsal, lane: str, pick: Pick) -> Step:
    return ["end", lane, pick(desk.lane_answers(lane))]


def _something_rare(pick: Pick) -> Step:
    rare = [["wait", 90], ["cancel", "stop"]]
    step: Step = pick([["wait", 1], ["wait", 6], ["crash"], ["crash"], pick(rare)])
    return step


def draw(desk: Rehearsal, seed: int, length: int) -> list[Step]:
    """Makes so many more steps, and says which."""
    chance, steps = random.Random(seed), list[Step]()
    for _ in range(length):
        steps.append(a_step(desk, chance.choice))
        desk.step(steps[-1])
    return steps


def a_program(seed: int, length: int, **terms: Any) -> tuple[Rehearsal, list[Step]]:
    """A program of so many steps, and the desk after it."""
    desk = Rehearsal(**terms)
    return desk, draw(desk, seed, length)
