"""The search for an order of commands, on small histories that a person can check by hand."""

import random

import pytest

from tests.chaos.linearizable import KILLED, PAUSED, RUNNING, STATES, Operation, effects, explain


def op(kind: str, start: float, end: float, result: str = "done", *, must: bool = True) -> Operation:
    return Operation(kind, start, end, must, result)


def read(state: str, start: float, end: float) -> Operation:
    return Operation("read", start, end, True, state)


NEVER = float("inf")
SOUND = {
    "nothing": [],
    "one after the other": [op("pause", 0, 1), read(PAUSED, 2, 3), op("kill", 4, 5), op("resume", 6, 7, "refused")],
    "a reading beside a kill may see either": [op("kill", 0, 5), read(RUNNING, 1, 2), read(KILLED, 3, 4)],
    "a resume that overlaps a kill may come first": [op("kill", 0, 5), op("resume", 1, 6), read(KILLED, 7, 8)],
    "a kill of unknown fate may never happen": [op("kill", 0, NEVER, "", must=False), read(RUNNING, 5, 6)],
    "or may happen late": [op("kill", 0, NEVER, "", must=False), read(RUNNING, 5, 6), read(KILLED, 7, 8)],
    "a restart brings it back": [op("kill", 0, 1), op("restart", 2, 3), read(RUNNING, 4, 5)],
    "a restart may be refused": [op("kill", 0, 1), op("restart", 2, 3, "refused"), read(KILLED, 4, 5)],
    "a signal takes effect later": [op("pause", 0, 9, ""), read(RUNNING, 1, 2), read(PAUSED, 3, 4)],
}
BROKEN = {
    "killed, and read as running": [op("kill", 0, 1), read(RUNNING, 2, 3)],
    "a resume of a killed desk is told as done": [op("kill", 0, 1), op("resume", 2, 3)],
    "killed is left without a restart": [op("kill", 0, 1), read(KILLED, 2, 3), read(RUNNING, 4, 5)],
    "a restart of nothing is told as done": [op("restart", 0, 1)],
    "a reading goes back in time": [op("pause", 0, 9), read(PAUSED, 1, 2), read(RUNNING, 3, 4)],
    "an accepted pause never takes effect": [op("pause", 0, 3, ""), read(RUNNING, 4, 5)],
    "a refusal without a reason": [op("pause", 0, 1, "refused")],
    "a kill after a restart is lost": [op("kill", 0, 1), op("restart", 2, 3), op("kill", 4, 5), read(RUNNING, 6, 7)],
}


@pytest.mark.parametrize("history", SOUND.values(), ids=SOUND)
def test_a_linearizable_history_is_sound(history: list[Operation]) -> None:
    assert explain(history) is None


@pytest.mark.parametrize("history", BROKEN.values(), ids=BROKEN)
def test_a_history_that_is_not_linearizable_is_named(history: list[Operation]) -> None:
    assert explain(history)


def test_the_verdict_agrees_with_trying_every_order() -> None:
    """On thousands of small histories, of which about half are broken."""
    chance = random.Random(7)
    verdicts = []
    for _ in range(3000):
        history = [_anything(chance) for _ in range(chance.randint(1, 5))]
        found = explain(history) is None
        assert found == _by_force(history, frozenset(), RUNNING), history
        verdicts.append(found)
    assert 500 < sum(verdicts) < 2500


def _anything(chance: random.Random) -> Operation:
    kind = chance.choice(("read", "kill", "pause", "resume", "restart"))
    start = chance.randint(0, 6)
    end = chance.choice((start + 1, start + 3, NEVER))
    if kind == "read":
        return read(chance.choice(STATES), start, start + 2)
    result = chance.choice(("done", "refused", "")) if kind != "kill" else "done"
    return Operation(kind, start, end, chance.random() < 0.7, result)


def _by_force(history: list[Operation], done: frozenset[int], state: str) -> bool:
    left = [n for n in range(len(history)) if n not in done]
    if not any(history[n].must for n in left):
        return True
    limit = min(history[n].end for n in left if history[n].must)
    return any(
        _by_force(history, done | {n}, after)
        for n in left
        if history[n].start <= limit
        for after in effects(history[n], state)
    )


def test_a_round_of_calls_is_searched_at_once() -> None:
    """Forty commands, many of them of unknown fate, and a hundred readings."""
    chance = random.Random(3)
    history = [op(chance.choice(("pause", "resume", "kill")), n, NEVER, "", must=False) for n in range(12)]
    history += [op("kill", n, n + 0.5) for n in range(30)]
    history += [read(KILLED, 30 + n / 10, 30 + n / 10 + 0.1) for n in range(100)]
    assert explain(history) is None
    assert explain([*history, read(PAUSED, 45, 46)]) is not None
