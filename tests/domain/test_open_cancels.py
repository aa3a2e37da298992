"""Open cancels by lane."""

from functools import partial

from domain.desk.applying import apply
from domain.desk.carried import Carried
from domain.desk.outbox import cancels_begun, cancels_confirmed, cancels_failed
from domain.desk.states import CommandKind
from domain.trading.instructions import Tool
from tests.domain.builders import NOW, a_command, a_desk, a_tick
from tests.domain.queues import calls

FUTURES, SPOT = Tool.CANCEL_ALL_ORDERS, Tool.CANCEL_SPOT_ALL_ORDERS


def asked(times: int = 1) -> Carried:
    desk = a_desk(symbols=["BTCUSDT", "ETHUSDT"])
    for number in range(times):
        apply(desk, a_command(CommandKind.CANCEL_ALL, f"c{number}"), a_tick())
    return desk


def ids(desk: Carried, tool: Tool, symbol: str) -> list[str]:
    return [cancel.instruction_id for cancel in desk.cancels.lane(tool, symbol)]


def test_each_symbol_and_market_is_a_lane_the_oldest_first() -> None:
    desk = asked()
    lanes = [(FUTURES, "BTCUSDT"), (SPOT, "BTCUSDT"), (FUTURES, "ETHUSDT"), (SPOT, "ETHUSDT")]
    assert (list(desk.cancels.lanes), len(desk.cancels), desk.cancels.added) == (lanes, 4, 4)
    cancels_confirmed(desk, ids(desk, *lanes[0]), NOW)
    assert list(desk.cancels.lanes) == lanes[1:]


def test_what_is_confirmed_already_is_confirmed_once_more_without_harm() -> None:
    desk = asked()
    gone = ids(desk, FUTURES, "BTCUSDT")
    for _ in range(2):
        cancels_confirmed(desk, gone, NOW)
    cancels_failed(desk, gone, "late")
    assert len(desk.cancels) == 3


def test_a_cancel_is_fresh_until_it_was_tried() -> None:
    desk = asked()
    assert desk.cancels.has_fresh(FUTURES, "BTCUSDT")
    cancels_failed(desk, ids(desk, FUTURES, "BTCUSDT"), "HTTP 503")
    assert not desk.cancels.has_fresh(FUTURES, "BTCUSDT")
    assert desk.cancels.newest(FUTURES, "BTCUSDT").last_error == "HTTP 503"


def test_whether_a_lane_has_a_fresh_one_costs_as_much_however_many_it_has() -> None:
    """A kill asks each of 800 lanes: to look at ten cancels of each was most of what a kill on a killed desk cost."""
    prices = []
    for times in (1, 10):
        desk = asked(times)
        cancels_failed(desk, ids(desk, FUTURES, "BTCUSDT"), "HTTP 503")
        prices.append(calls(partial(desk.cancels.has_fresh, FUTURES, "BTCUSDT")))
    assert prices[0] == prices[1]


def test_a_full_lane_takes_another_one_only_where_all_in_it_have_begun() -> None:
    desk = asked(times=2)
    assert not desk.cancels.has_room(FUTURES, "BTCUSDT", most=2)
    cancels_begun(desk, ids(desk, FUTURES, "BTCUSDT"))
    assert desk.cancels.has_room(FUTURES, "BTCUSDT", most=2)
    assert desk.cancels.has_room(FUTURES, "DOGEUSDT", most=2)


def test_it_is_carried_over_as_a_list() -> None:
    desk = asked()
    text = desk.model_dump_json()
    assert f'"cancels":[{{"instruction_id":"{next(iter(desk.cancels)).instruction_id}"' in text
    assert Carried.model_validate_json(text) == desk
