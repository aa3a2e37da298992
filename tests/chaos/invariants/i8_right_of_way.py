"""I8: the kill has the right of way. Bounds are generous: the machine may be busy with something else."""

from collections.abc import Iterator

from tests.chaos.reading import Reading
from tests.chaos.schedule import APIS, PAUSED, WORKERS

Found = Iterator[tuple[float, str]]
# Three seconds are what the API gives itself.
ANSWER_SECONDS = 6.0
ACT_SECONDS = 6.0
SLOW_SECONDS = 0.5


def a_kill_over_http_is_answered_in_time(reading: Reading) -> Found:
    """Whatever is wrong with database, venue and workers: with an API and Temporal it is recorded, and says so."""
    for call in reading.calls("kill"):
        if call.channel != "http":
            continue
        api = APIS[call.args["api"]]
        way = (api, f"client>{api}", f"{api}>temporal", "temporal")
        end = call.end or call.start + ANSWER_SECONDS
        if reading.disturbed(call.start, end, *way) or _temporal_is_slow(reading, call.start, end):
            continue
        # Under the id of another command, which only a killed desk refuses (i2_killed_is_final.py).
        refused = call.status == 422 and "used for another command" in call.told
        if not (call.acknowledged or refused) or end - call.start > ANSWER_SECONDS:
            told = f"{call.status or ''} {call.told}".strip()
            yield call.start, f"{call.client}'s kill {call.token} was answered after {end - call.start:.1f} s: {told}"


def _temporal_is_slow(reading: Reading, start: float, end: float) -> bool:
    """Whether those who ask Temporal itself, past AIS and every proxy, waited as well: then nobody's kill can be quicker."""
    return any(
        call.channel == "temporal"
        and call.start - 2 <= end
        and (call.end or call.start + SLOW_SECONDS) + 2 >= start
        and (call.end or float("inf")) - call.start >= SLOW_SECONDS
        for call in reading.e.calls
    )


def a_kill_acts_at_once(reading: Reading) -> Found:
    """With a worker and Temporal, the first cancel is on its way within seconds of the kill's arrival."""
    ways = tuple(f"{worker}>temporal" for worker in WORKERS)
    starts = sorted(each.activity.scheduled.at for each in reading.cancel_tries)
    for position in reading.kill_positions:
        at = reading.e.events[position].at
        busy = _temporal_is_slow(reading, at, at + ACT_SECONDS)
        if busy or reading.disturbed(at, at + ACT_SECONDS, "temporal", PAUSED, *WORKERS, *ways):
            continue
        first = next((start for start in starts if start >= at), None)
        if first is None or first - at > ACT_SECONDS:
            yield at, f"after kill {reading.e.events[position].payload} no cancel was begun within {ACT_SECONDS:g} s"


RULES = (a_kill_over_http_is_answered_in_time, a_kill_acts_at_once)
