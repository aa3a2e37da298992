"""I7: closed when in doubt."""

from collections.abc import Iterator
from datetime import datetime
from math import isclose
from typing import Any

from domain.risk.limits import Limits
from tests.chaos import recorder as r
from tests.chaos.evidence import VenueOrder
from tests.chaos.invariants.i2_killed_is_final import ways
from tests.chaos.invariants.i3_silence import orders_within, why_wrong
from tests.chaos.invariants.i5_written_before_done import orders_in
from tests.chaos.linearizable import PAUSED
from tests.chaos.reading import Activity, Reading
from tests.chaos.schedule import APIS, COLLEAGUE, FORMER, VIEWER, WRONG_KEY

Found = Iterator[tuple[float, str]]
# domain/desk/ordering.py: of cycles that are shorter.
SHORTEST_ORDER_SECONDS = 2.0
CLOCK_SECONDS = 0.01
# A workflow task looks at the time when it begins, and on a busy machine it takes a while.
TAKEN_UP_SECONDS = 1.0
LIMITS = Limits()
# What follows a reading begins with its end; a machine may be busy.
ACTS_WITHIN_SECONDS = 4.0
# Between the reading and the fill, and an earlier fill.
PRICES_MOVE = 1.1
# docs/keys.md says ten.
REVOKED_WITHIN_SECONDS = 10.5
# A process that has not read the keys yet knows none of them.
TURNED_AWAY = {WRONG_KEY: (401,), VIEWER: (401, 403, 503), FORMER: (401, 403, 503), COLLEAGUE: (401, 403, 503)}


def no_order_while_paused(reading: Reading) -> Found:
    """Nothing that adds risk is sent once a pause is acknowledged."""
    yield from orders_within(reading, "pause", ("resume", "restart"), "pause")


def strangers_are_turned_away(reading: Reading) -> Found:
    """Whoever has no key is told 401; nothing that he says is recorded, nor what somebody says who may only read."""
    said = [event.payload for event in reading.signals if isinstance(event.payload, dict)]
    for call in reading.e.calls:
        if "key" not in call.args:
            continue
        is_open = call.args["key"] != WRONG_KEY and call.kind == "status"
        if call.status is not None and not is_open and call.status not in TURNED_AWAY[call.args["key"]]:
            yield call.start, f"the {call.kind} of somebody with the key {call.args['key']} was answered {call.status}"
        if any(call.token and payload.get("reason") == call.token for payload in said):
            yield call.start, f"a stranger's {call.kind} {call.token} was recorded"


def a_revoked_key_opens_nothing(reading: Reading) -> Found:
    """Ten seconds after it was revoked, in every API that could read the database meanwhile."""
    for call in reading.e.calls:
        if call.args.get("key") != FORMER or call.start < reading.e.revoked_at + REVOKED_WITHIN_SECONDS:
            continue
        api = APIS[call.args["api"]]
        blind = reading.disturbed(reading.e.revoked_at, call.start, "database", api, f"{api}>database", after=6.0)
        if call.status == 200 and not blind:
            yield call.start, f"a key opened {call.start - reading.e.revoked_at:.1f} s after it was revoked"


def every_order_passed_the_guards(reading: Reading) -> Found:
    """An order that adds risk belongs to a decision that the guards passed, and to a symbol of the whitelist."""
    decisions = {row["selected_order_id"]: row for row in reading.e.decisions if row["selected_order_id"]}
    for order in reading.risky_orders:
        row = decisions.get(reading.our_ids.get(order.order_id, ""))
        if row is not None and not row["risk_passed"]:
            yield order.at, f"order {order.order_id} was sent although the guards refused it: {row['risk_reasons']}"
        if order.symbol not in reading.e.symbols:
            yield order.at, f"order {order.order_id} is of {order.symbol}, which nobody has allowed"


def no_order_passes_the_limit_of_a_position(reading: Reading) -> Found:
    """No order that adds risk leaves more of a symbol than its share of the account; on paper, where every fill is on record."""
    readings = [each for each in reading.named("observe") if each.result and each.result.get("marks")]
    for order in [] if reading.e.live else reading.risky_orders:
        seen = next((each.result for each in reversed(readings) if each.ended <= order.at), None)
        if seen is None or not order.versions or order.symbol not in seen["marks"]:
            continue
        held = reading.position_at(order.symbol, order.versions[0].written)
        worth = float(seen["account"]["balance"]) + float(seen["account"].get("unrealised_profit") or 0)
        share = held * order.sign * float(seen["marks"][order.symbol]) / worth
        if share > float(LIMITS.max_position_fraction) * PRICES_MOVE:
            yield order.at, f"order {order.order_id} left {share:.2f} of the account in {order.symbol}"


def no_order_outlives_its_time(reading: Reading) -> Found:
    """What was decided for one cycle is not begun after it, and its time is no longer than that."""
    for order_id, (placing, *_) in reading.placings.items():
        order, longest = placing.scheduled.payload["order"], max(reading.e.cycle_seconds, SHORTEST_ORDER_SECONDS)
        if order["instruction"]["reduce_only"] or not order.get("prepared_at"):
            continue
        if (lasts := _seconds(order["not_after"]) - _seconds(order["prepared_at"])) > longest + CLOCK_SECONDS:
            yield placing.scheduled.at, f"order {order_id} may be sent for {lasts:g} s, and a cycle takes {longest:g} s"
    for order in reading.risky_orders:
        if order.not_after is not None and order.at > order.not_after:
            yield order.at, f"order {order.order_id} was sent {order.at - order.not_after:.2f} s after its time"


def no_order_under_limits_of_before(reading: Reading) -> Found:
    """Once new limits are applied, nothing that was decided under others is given out; nor sent, once that is told."""
    for order_id, (placing, *_) in reading.placings.items():
        if other := _others(reading, order_id, _limits_at(reading, placing.scheduled.at)):
            yield placing.scheduled.at, f"order {order_id} was given out after other limits ({other}) were applied"
    known: set[str | None] = set()
    for call, start, until in reading.windows(("set_limits", "restart"), "set_limits"):
        if call.answer != r.DONE or call.command_id in known:
            continue
        known.add(call.command_id)
        for order in reading.risky_orders:
            order_id = reading.our_ids.get(order.order_id, "")
            if not start < (order.committed or order.at) < until:
                continue
            if (other := _others(reading, order_id, call.args["limits"])) and (why := why_wrong(reading, order, start)):
                yield order.at, f"order {order.order_id} {why} other limits ({other}) were told as applied"


def the_limits_that_were_applied_are_the_desks(reading: Reading) -> Found:
    """In the end the status shows those that were set last."""
    if reading.e.settled_at is None or not reading.e.status:
        return
    shown = reading.e.status.get("limits") or {}
    for name, value in _limits_at(reading, reading.e.settled_at).items():
        if float(shown.get(name, "nan")) != float(value):
            yield reading.e.settled_at, f"{name} {value} was applied last, and the desk has {shown.get(name)}"


def limits_are_loosened_only_while_paused(reading: Reading) -> Found:
    """Lower is tighter. What is looser takes a desk that is paused, by its own log."""
    held: dict[str, float] = {}
    for row, possible, _ in ways(reading):
        if row["summary"].startswith("restart applied"):
            held = {}
        elif row["summary"].startswith("set_limits applied"):
            told = reading.signals_by_id.get(row["command_id"], [])
            given = {name: float(value) for name, value in told[0].payload["limits"].items()} if told else {}
            looser = [name for name, value in given.items() if value > held.get(name, float(getattr(LIMITS, name)))]
            if looser and PAUSED not in possible:
                at = row["timestamp"].timestamp()
                yield at, f"{', '.join(looser)} was loosened while the desk was {'/'.join(sorted(possible))}"
            held |= given


def the_peak_of_the_account_stays(reading: Reading) -> Found:
    """By it the drawdown is measured. Only a restart begins it anew: then a person has looked. A cycle knows what the one before
    found, whichever run either belongs to."""
    cleared = [activity.done_position or 0 for activity in reading.named("clear_latch") if activity.result]
    before, position, found, found_at = 0.0, -1, 0.0, -1
    for activity in reading.named("observe"):
        peak = float((activity.scheduled.payload.get("risk") or {}).get("peak") or 0.0)
        if peak < before and not any(position < done < activity.position for done in cleared):
            yield activity.scheduled.at, f"the peak of the account fell from {before:g} to {peak:g}"
        before, position = peak, activity.position
        # Readings that confirm something run beside the cycles, and are not remembered.
        if not activity.scheduled.payload.get("cycle_id"):
            continue
        if peak < found and not any(found_at < done < activity.position for done in cleared):
            yield (
                activity.scheduled.at,
                f"a cycle found that the peak is {found:g}, and the next one began with {peak:g}",
            )
        found, found_at = _peak_found(activity), activity.position


def _peak_found(activity: Activity) -> float:
    """By a cycle's reading; 0 where it found none, or is in doubt."""
    seen = activity.result or {}
    memory = (seen.get("assessment") or {}).get("memory") or {}
    return 0.0 if seen.get("doubts") else float(memory.get("peak") or 0.0)


def what_passes_a_soft_limit_is_reduced(reading: Reading) -> Found:
    """A cycle's reading that calls for a cut is followed by the sizing of one, unless something is wrong or somebody kills. One
    that is under way already serves, too."""
    for activity, start, until in _cycles(reading):
        for cut in _assessed(activity, "cuts"):
            sized = (each for each in reading.named("plan_deleverage") if _is_of(each, cut["symbol"]))
            in_time = any(start < each.scheduled.at < until for each in sized)
            if not in_time and not _killed_or_disturbed(reading, start, until):
                yield (
                    activity.ended,
                    f"a reading called for a cut of {cut['quantity']} {cut['symbol']}, and there was none",
                )


def what_passes_a_hard_limit_kills(reading: Reading) -> Found:
    """Once a second reading has confirmed it, which comes at once."""
    for activity, start, until in _cycles(reading):
        for breach in _assessed(activity, "breaches"):
            if not _killed_or_disturbed(reading, start, until):
                yield activity.ended, f"a reading showed {breach['reason']}, and the desk did not kill itself"


def _cycles(reading: Reading) -> Iterator[tuple[Activity, float, float]]:
    """The readings of cycles that are no doubts, each with the time around it within which the desk acts on it."""
    for activity in reading.named("observe") if reading.e.settled_at else ():
        start, until = activity.scheduled.at - ACTS_WITHIN_SECONDS, activity.ended + ACTS_WITHIN_SECONDS
        doubtful = (activity.result or {}).get("doubts")
        if activity.scheduled.payload.get("cycle_id") and not doubtful and until <= reading.e.healed_at:
            yield activity, start, until


def _assessed(activity: Activity, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ((activity.result or {}).get("assessment") or {}).get(what) or []
    return found


def _is_of(activity: Activity, symbol: str) -> bool:
    return bool(activity.scheduled.payload["symbol"] == symbol)


def _killed_or_disturbed(reading: Reading, start: float, end: float) -> bool:
    """Whether the desk may have been killed then, or something was wrong with any part."""
    kills = (row["timestamp"].timestamp() for row in reading.control_rows if row["summary"].startswith("kill "))
    restarts = (row["timestamp"].timestamp() for row in reading.control_rows if row["summary"].startswith("restart "))
    is_killed = max((at for at in kills if at <= end), default=-1.0) > max(
        (at for at in restarts if at <= start), default=-0.5
    )
    wrong = any(note.fault and note.at <= end and (note.until or end) + 3.0 >= start for note in reading.e.notes)
    return is_killed or wrong


def no_expired_proposal_is_decided(reading: Reading) -> Found:
    """What an agent said for some seconds is not put to a decision after them."""
    asked = [(each, each.scheduled.payload) for each in reading.named("decide")]
    asked += [(each, each.scheduled.payload.get("decides") or {}) for each in reading.named("observe")]
    for each, facts in asked:
        at = reading.task_began(each)
        for proposal in facts.get("proposals") or []:
            if proposal.get("expires_at") and at > (over := _seconds(proposal["expires_at"])) + TAKEN_UP_SECONDS:
                yield at, f"a proposal of {proposal['agent_id']} was put to a decision {at - over:.1f} s after its time"


def _limits_at(reading: Reading, moment: float) -> dict[str, Any]:
    """Those that were set last before it; a restart may bring others."""
    found: dict[str, Any] = {}
    for row in reading.control_rows:
        if row["timestamp"].timestamp() >= moment - CLOCK_SECONDS:
            break
        if row["summary"].startswith("restart applied"):
            found = {}
        elif row["summary"].startswith("set_limits applied"):
            told = reading.signals_by_id.get(row["command_id"], [])
            found = told[0].payload["limits"] if told else {}
    return found


def _others(reading: Reading, order_id: str, limits: dict[str, Any]) -> str:
    """The names of those limits under which an order was not decided."""
    under = _decided_under(reading, order_id)
    return ", ".join(name for name, value in limits.items() if name in under and float(under[name]) != float(value))


def _decided_under(reading: Reading, order_id: str) -> dict[str, Any]:
    """The limits of the last choice before an order's decision was written. A reading may bring a choice, too."""
    written = next((a for a in reading.named("record") if order_id in orders_in(a)), None)
    readings = [a for a in reading.named("observe") if (a.result or {}).get("choice")]
    chosen = [a for a in (*reading.named("decide"), *readings) if a.succeeded and a.done_position is not None]
    before = [a for a in chosen if written and (a.done_position or 0) < written.position]
    last = max(before, key=lambda a: a.done_position or 0, default=None)
    return last.scheduled.payload.get("limits") or {} if last else {}


def every_order_is_as_it_was_written_down(reading: Reading) -> Found:
    """What the venue has is what the log's instruction says: symbol, side, quantity, price, and whether it only reduces."""
    written = {row["instruction_id"]: row for row in reading.e.instructions if row["tool"] == "create_order"}
    for order in reading.e.orders:
        row = written.get(reading.our_ids.get(order.order_id, ""))
        if row is not None and (differ := _differences(order, row)):
            yield order.at, f"order {order.order_id} is not what was written down: {', '.join(differ)}"


def _differences(order: VenueOrder, row: dict[str, Any]) -> list[str]:
    facts = [(name, getattr(order, name), row[name]) for name in ("symbol", "side", "reduce_only")]
    # A real venue cuts an order that only reduces to what is held, and has a bound as the price of one at market.
    if not (order.reduce_only and order.quantity < float(row["quantity"])):
        facts.append(("quantity", order.quantity, float(row["quantity"])))
    if row["price"] is not None:
        facts.append(("price", order.price, float(row["price"])))
    return [f"{name} {had}, not {said}" for name, had, said in facts if had != said]


def every_reduction_is_of_what_is_held(reading: Reading) -> Found:
    """A reduction is sized from the position that the venue has: against it, by the part that was asked for, to a lot."""
    for activity in [] if reading.e.live else reading.named("plan_deleverage"):
        if activity.result and (why := _why_unsound(reading, activity)):
            yield activity.ended, f"a reduction of {activity.scheduled.payload['symbol']} {why}"


def _why_unsound(reading: Reading, activity: Activity) -> str | None:
    asked, planned = activity.scheduled.payload, activity.result
    order, symbol = planned["instruction"], asked["symbol"]
    # Sized from a reading that was made while the activity ran.
    held = reading.positions_between(symbol, activity.scheduled.at, activity.ended)
    if order is None:
        overlooked = planned["closed"] and all(held)
        return f"was refused since nothing was held, and the venue had {held}" if overlooked else None
    position, sized = float(planned["position"]), float(order["quantity"])
    if not any(isclose(position, each, abs_tol=1e-9) for each in held):
        return f"was sized from {position:g}, and the venue had {held}"
    whole = abs(position)
    wanted = whole * float(asked["reduce_pct"]) if asked["quantity"] is None else min(whole, float(asked["quantity"]))
    fits = wanted - reading.lot_step(symbol) < sized <= wanted + 1e-9
    against = order["reduce_only"] and (order["side"] == "SELL") == (position > 0)
    return None if against and fits else f"of {wanted:g} of {position:g} became {order['side']} {sized:g}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


RULES = (
    no_order_while_paused,
    strangers_are_turned_away,
    a_revoked_key_opens_nothing,
    every_order_passed_the_guards,
    no_order_passes_the_limit_of_a_position,
    no_order_outlives_its_time,
    no_order_under_limits_of_before,
    the_limits_that_were_applied_are_the_desks,
    limits_are_loosened_only_while_paused,
    the_peak_of_the_account_stays,
    what_passes_a_soft_limit_is_reduced,
    what_passes_a_hard_limit_kills,
    no_expired_proposal_is_decided,
    every_order_is_as_it_was_written_down,
    every_reduction_is_of_what_is_held,
)
