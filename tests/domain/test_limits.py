"""The numbers of the limits: what may be asked for, and what is tighter."""

import re
from decimal import Decimal
from typing import Any

import pytest

from domain.risk.limits import PORTFOLIO_LIMITS, Limits, changed

D = Decimal


def test_defaults_are_in_order() -> None:
    assert Limits() == Limits.model_validate(Limits().model_dump(mode="json"))


def test_what_is_not_given_is_never_stricter_than_what_is() -> None:
    """A desk that was started when a limit had one number goes on with that number."""
    old = Limits.model_validate({"max_gross_exposure_fraction": "3", "max_position_fraction": "0.4"})
    assert (old.soft_gross_exposure_fraction, old.hard_gross_exposure_fraction) == (D(3), D(3))
    assert (old.soft_position_fraction, old.hard_position_fraction) == (D("0.4"), D("0.5"))


@pytest.mark.parametrize("limit", PORTFOLIO_LIMITS, ids=lambda limit: limit.name)
def test_every_portfolio_limit_names_numbers_that_there_are(limit: Any) -> None:
    assert set(limit.numbers) <= set(Limits.model_fields)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"max_levrage": 1}, "there is no limit 'max_levrage'; did you mean 'max_leverage'?"),
        ({"max_leverage": 3}, "max_leverage (3) is above soft_leverage (2.5); give both"),
        ({"hard_drawdown": "0.07"}, "soft_drawdown (0.08) is above hard_drawdown (0.07); give both"),
        ({"max_leverage": True}, "max_leverage: must be a number"),
        ({"max_leverage": "NaN"}, "max_leverage: Input should be a finite number"),
        ({"max_leverage": "1E+999999"}, "max_leverage: Input should be less than or equal to 1000"),
        ({"max_leverage": "1E-999999"}, "max_leverage: Decimal input should have no more than 9 decimal places"),
        ({"soft_drawdown": 0}, "soft_drawdown: Input should be greater than 0"),
        ({"hard_drawdown": "1.1"}, "hard_drawdown: Input should be less than or equal to 1"),
        ({"max_orders_per_minute": "2.5"}, "max_orders_per_minute: Input should be a valid integer"),
        ({"max_leverage": None}, "max_leverage: "),
    ],
)
def test_a_wrong_limit_is_refused_with_what_is_wrong(asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        changed(Limits(), asked)


@pytest.mark.parametrize(
    ("name", "number", "loosens"),
    [
        ("max_leverage", "1.5", False),
        ("hard_leverage", "3.5", True),
        ("soft_drawdown", "0.07", False),
        ("soft_drawdown", "0.09", True),
        ("max_data_age_seconds", "60", False),
        ("max_volume_share", "0.2", True),
        ("max_orders_per_minute", "5", False),
        ("correlation_threshold", "0.7", False),
        ("correlation_threshold", "0.9", True),
        ("order_fraction", "0.01", False),
    ],
)
def test_a_limit_is_looser_the_higher_it_is(name: str, number: str, loosens: bool) -> None:
    _, (change,) = changed(Limits(), {name: number})
    assert (change.name, change.loosens) == (name, loosens)


def test_nothing_changes_where_the_same_is_asked_for() -> None:
    after, changes = changed(Limits(), {"max_leverage": "2.0"})
    assert (after, changes) == (Limits(), [])
