"""What a desk's account was worth in each cycle. Every reliable reading writes a point; reports read them as a curve.

A curve has a limited number of points and keeps the extremes. The time is cut into equal stretches; each stretch keeps its
lowest and its highest equity, and the curve its first and last point. Over long times, stretches consist of whole hours, whose
extremes were noted when the points were written.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, literal, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert

from domain.values import Moment, Value
from storage.cleaning import clean, clean_values
from storage.tables import equity, equity_hours

_UNSURE = text("SET LOCAL synchronous_commit = off")
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_POINTS = 10
MAX_POINTS = 5_000


class EquityPoint(Value):
    """The account at one moment. Amounts are in quote currency. Exposures and leverage are fractions of equity, the drawdown of
    the peak. `prices` are mark prices by symbol."""

    time: Moment
    equity: Decimal
    balance: Decimal
    drawdown: Decimal
    gross_exposure: Decimal
    net_exposure: Decimal
    leverage: Decimal
    prices: dict[str, Decimal]


class CurveFilter(Value):
    """The wanted time, from the first point or `since` to the last point or `until`, and the most points to return."""

    since: Moment | None = None
    until: Moment | None = None
    points: int = 500


_Ends = tuple[datetime, datetime]


class _Source(NamedTuple):
    """What stretches are made of: the points themselves, or the hours' extremes."""

    desk: ColumnElement[str]
    moment: ColumnElement[datetime]
    lowest: ColumnElement[Decimal]
    lowest_time: ColumnElement[datetime]
    highest: ColumnElement[Decimal]
    highest_time: ColumnElement[datetime]


_POINTS = _Source(equity.c.desk, equity.c.time, equity.c.equity, equity.c.time, equity.c.equity, equity.c.time)
_HOURS = _Source(
    equity_hours.c.desk,
    equity_hours.c.hour,
    equity_hours.c.lowest,
    equity_hours.c.lowest_time,
    equity_hours.c.highest,
    equity_hours.c.highest_time,
)


def write_point(connection: Connection, desk: str, point: EquityPoint) -> None:
    """Writes a point, and updates the extremes of its hour. A point that is there already stays as it is.

    Its commit waits for neither a standby nor the disk. One that waits keeps its connection although the caller has given up, and
    each cycle would add another, until the server has none left for anybody.
    """
    connection.execute(_UNSURE)
    row = point.model_dump(exclude={"prices"}) | {"prices": {name: str(price) for name, price in point.prices.items()}}
    written = (
        insert(equity).values(clean_values({"desk": desk} | row)).on_conflict_do_nothing().returning(equity.c.time)
    )
    if connection.execute(written).first():
        _note_extremes(connection, clean(desk), point)


def _note_extremes(connection: Connection, desk: str, point: EquityPoint) -> None:
    statement = insert(equity_hours).values(
        desk=desk,
        hour=_hour(point.time),
        lowest=point.equity,
        lowest_time=point.time,
        highest=point.equity,
        highest_time=point.time,
    )
    new, old = statement.excluded, equity_hours.c
    lower, higher = new.lowest < old.lowest, new.highest > old.highest
    changes = {
        "lowest": case((lower, new.lowest), else_=old.lowest),
        "lowest_time": case((lower, new.lowest_time), else_=old.lowest_time),
        "highest": case((higher, new.highest), else_=old.highest),
        "highest_time": case((higher, new.highest_time), else_=old.highest_time),
    }
    statement = statement.on_conflict_do_update(index_elements=["desk", "hour"], set_=changes, where=or_(lower, higher))
    connection.execute(statement)


def read_curve(connection: Connection, desk: str, wanted: CurveFilter) -> list[EquityPoint]:
    """The points of a curve, oldest first."""
    ends = _ends(connection, clean(desk), wanted)
    if ends is None:
        return []
    if _width(ends, wanted) < HOUR:
        times = _extremes(connection, clean(desk), _POINTS, ends, wanted)
    else:
        # If the time began within an hour, that hour's extreme could lie before it: so the curve covers whole hours.
        ends = _ends(connection, clean(desk), _whole_hours(wanted)) or ends
        times = _extremes(connection, clean(desk), _HOURS, ends, wanted)
    rows = connection.execute(
        select(equity).where(equity.c.desk == clean(desk), equity.c.time.in_({*ends, *times})).order_by(equity.c.time)
    )
    return [EquityPoint.model_validate(dict(row)) for row in rows.mappings()]


def _ends(connection: Connection, desk: str, wanted: CurveFilter) -> _Ends | None:
    found = select(func.min(equity.c.time), func.max(equity.c.time)).where(equity.c.desk == desk)
    if wanted.since is not None:
        found = found.where(equity.c.time >= wanted.since)
    if wanted.until is not None:
        found = found.where(equity.c.time < wanted.until)
    first, last = connection.execute(found).one()
    return (first, last) if first is not None else None


def _stretches(wanted: CurveFilter) -> int:
    """The number of stretches: each has two points, and the curve two ends."""
    return (max(wanted.points, MIN_POINTS) - 2) // 2


def _width(ends: _Ends, wanted: CurveFilter) -> timedelta:
    return max((ends[1] - ends[0]) / _stretches(wanted), timedelta(microseconds=1))


def _whole_hours(wanted: CurveFilter) -> CurveFilter:
    since = wanted.since and _hour(wanted.since)
    until = wanted.until and -((-(wanted.until - EPOCH)) // HOUR) * HOUR + EPOCH
    return wanted.model_copy(update={"since": since, "until": until})


def _hour(moment: datetime) -> datetime:
    return (moment - EPOCH) // HOUR * HOUR + EPOCH


def _extremes(
    connection: Connection, desk: str, source: _Source, ends: _Ends, wanted: CurveFilter
) -> Iterator[datetime]:
    """The times of the lowest and the highest point of each stretch; of equal points, the first."""
    since_first = func.extract("epoch", source.moment - literal(ends[0]))
    number = func.floor(since_first / literal(_width(ends, wanted).total_seconds()))
    # The hour of the first point begins before it, and the last point is where the last stretch ends.
    stretch = func.least(func.greatest(number, 0), _stretches(wanted) - 1).label("stretch")
    begin = _hour(ends[0]) if source is _HOURS else ends[0]
    within = (source.desk == desk, source.moment >= begin, source.moment <= ends[1])
    for order, moment in ((source.lowest, source.lowest_time), (source.highest.desc(), source.highest_time)):
        chosen = select(stretch, moment.label("time")).where(*within).ext(distinct_on(stretch))
        rows = connection.execute(chosen.order_by(stretch, order, moment))
        yield from (row.time for row in rows)
