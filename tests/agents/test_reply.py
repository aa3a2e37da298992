"""Whatever an agent answers that is not a list of suggestions costs its own vote, and says what is wrong."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.agents.port import MAX_SUGGESTIONS, Agent, Suggestion
from activities.agents.reply import Reply, reply_of
from domain.trading.instructions import Side
from domain.trading.proposals import MAX_RATIONALE_CHARS, FailureKind
from tests.agents.builders import BTC, seeing
from tests.agents.plugin import trouble


def said(**changes: Any) -> dict[str, Any]:
    return {"symbol": BTC, "side": "BUY", "confidence": 0.5, **changes}


def reply_to(answer: Any) -> Reply:
    def agent(*_: Any) -> Any:
        return answer

    return reply_of(agent, seeing({BTC: [1.0, 2.0]}))


def generated() -> Iterator[Mapping[str, Any]]:
    yield MappingProxyType(said())


@pytest.mark.parametrize(
    "answer",
    [
        [said()],
        (said(),),
        generated(),
        [Suggestion(symbol=BTC, side=Side.BUY, confidence=0.5)],
        [said(confidence=np.float32(0.5), side=Side.BUY)],
        [said(confidence=Decimal("0.5"), symbol=np.str_(BTC), side=np.str_("BUY"))],
        np.array([said()]),
    ],
    ids=["list", "tuple", "generator", "Suggestion", "numpy", "Decimal", "array"],
)
def test_a_suggestion_may_be_written_in_many_ways(answer: Any) -> None:
    reply = reply_to(answer)
    assert reply == Reply(suggestions=[Suggestion(symbol=BTC, side=Side.BUY, confidence=0.5)])


@pytest.mark.parametrize("answer", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_an_empty_answer_abstains(answer: Any) -> None:
    assert reply_to(answer) == Reply()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "it returned a NoneType, not a list of suggestions ([] abstains)"),
        (said(), "it returned a dict, not a list of suggestions ([] abstains)"),
        ("BUY", "it returned a str, not a list"),
        (0.7, "it returned a float, not a list"),
        ([said()] * (MAX_SUGGESTIONS + 1), f"it made more than {MAX_SUGGESTIONS} suggestions"),
        ([said(), 7], "suggestion 2: "),
        ([said(confidence=float("nan"))], "suggestion 1: confidence: "),
        ([said(confidence=1.01)], "suggestion 1: confidence: "),
        ([said(confidence=None)], "suggestion 1: confidence: "),
        ([said(side="HOLD")], "suggestion 1: side: "),
        ([said(side="buy")], "suggestion 1: side: "),
        ([said(expected_return=float("inf"))], "suggestion 1: expected_return: "),
        ([said(symbol="DOGEUSDT")], "suggestion 1: 'DOGEUSDT' is not a symbol of this desk"),
        ([said(symbol="\ud800" * 1000)], "suggestion 1: '"),
        ([said(**{"\ud800" * 1000: 1})], "suggestion 1: "),
        ([said(expected_returns=0.1)], "suggestion 1: expected_returns: Extra inputs are not permitted"),
        ([{"symbol": BTC}], "suggestion 1: side: Field required"),
        ([Suggestion.model_construct(symbol=BTC, side=Side.BUY, confidence=3.0)], "suggestion 1: confidence: "),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_nonsense_is_told_so_that_its_author_finds_it(answer: Any, error: str) -> None:
    reply = reply_to(answer)
    assert reply.failure is FailureKind.NONSENSE
    assert reply.error.startswith(error)
    assert reply.suggestions == []
    assert len(reply.model_dump_json()) < 300


@pytest.mark.parametrize(
    ("agent", "error"),
    [
        (trouble.raises, "ZeroDivisionError: division by zero!!!"),
        (trouble.raises_late, "LookupError: in the middle"),
        (trouble.raises_its_own, "_TwoArguments: (1, 2)"),
        (trouble.leaves, "SystemExit: 4"),
        (trouble.writes, "ValueError: assignment destination is read-only"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whatever_an_agent_raises_costs_its_own_vote(agent: Agent, error: str) -> None:
    reply = reply_of(agent, seeing({BTC: [1.0, 2.0]}))
    assert reply.failure is FailureKind.RAISED
    assert reply.error.startswith(error)
    assert len(reply.error) <= 200


def test_ctrl_c_is_a_persons_and_stops_a_replay() -> None:
    with pytest.raises(KeyboardInterrupt):
        reply_of(trouble.interrupts, seeing())


def test_an_agent_that_floods_is_not_read_to_the_end() -> None:
    def endless(*_: Any) -> Iterator[dict[str, Any]]:
        while True:
            yield said()

    assert reply_of(endless, seeing()).failure is FailureKind.NONSENSE


def test_a_long_rationale_is_cut_and_costs_nothing() -> None:
    (suggestion,) = reply_to([said(rationale="x" * 5000)]).suggestions
    assert suggestion.rationale == "x" * MAX_RATIONALE_CHARS
    (suggestion,) = reply_to([said(rationale="half a \ud83d")]).suggestions
    assert suggestion.rationale == "half a ?"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([BTC, "BUY", "SELL"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["symbol", "side", "confidence", "rationale"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_comes_back_is_a_reply_that_can_be_sent(answer: Any) -> None:
    reply = reply_to(answer)
    assert Reply.model_validate_json(reply.model_dump_json()) == reply
    assert all(0 <= suggestion.confidence <= 1 for suggestion in reply.suggestions)
