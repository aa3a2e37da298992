"""Pages, newest first. Each begins exactly where the previous one ended, whatever was written meanwhile (keyset)."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Connection, Integer, RowMapping, Select, bindparam, tuple_

from domain.values import Moment, Value
from storage.cleaning import clean


class InvalidCursor(ValueError):
    """The cursor did not come from a page of this report."""

    def __init__(self) -> None:
        super().__init__("the cursor did not come from a page of this report")


class PageFilter(Value):
    """The wanted rows, and how many. None does not filter; `until` is exclusive."""

    limit: int = 50
    cursor: str | None = None
    symbol: str | None = None
    since: Moment | None = None
    until: Moment | None = None


class Keyset(NamedTuple):
    """The columns that order the rows; ids order rows of the same microsecond."""

    moment: ColumnElement[datetime]
    row_id: ColumnElement[str]

    def walk(self, statement: Select[Any], bounds: frozenset[str]) -> Select[Any]:
        """The statement's rows, newest first, within `bounds`: a page, and one row more if there is a next page."""
        if "since" in bounds:
            statement = statement.where(self.moment >= bindparam("since", type_=self.moment.type))
        if "until" in bounds:
            statement = statement.where(self.moment < bindparam("until", type_=self.moment.type))
        if "place_at" in bounds:
            place = tuple_(bindparam("place_at", type_=self.moment.type), bindparam("place_id", type_=self.row_id.type))
            statement = statement.where(tuple_(self.moment, self.row_id) < place)
        statement = statement.order_by(self.moment.desc(), self.row_id.desc())
        return statement.limit(bindparam("rows", type_=Integer))

    def values(self, wanted: PageFilter) -> dict[str, Any]:
        """The parameters of `walk`. Their names are its `bounds`."""
        values: dict[str, Any] = {"since": wanted.since, "until": wanted.until, "rows": wanted.limit + 1}
        if wanted.cursor is not None:
            place = _place(wanted.cursor)
            values |= {"place_at": place.moment, "place_id": place.row_id}
        return {name: value for name, value in values.items() if value is not None}

    def following(self, after: datetime | None, most: int | None, statement: Select[Any]) -> Select[Any]:
        """The other direction: the statement's rows in the order of time, after a moment, at most `most`."""
        if after is not None:
            statement = statement.where(self.moment > after)
        return statement.order_by(self.moment, self.row_id).limit(most)

    def read(
        self, connection: Connection, statement: Select[Any], wanted: PageFilter
    ) -> tuple[list[RowMapping], str | None]:
        """One page of `walk`, and the cursor of the next one; None on the last page."""
        values = self.values(wanted)
        found = connection.execute(self.walk(statement, frozenset(values)), values)
        return self.cut(found.mappings().all(), wanted)

    def cut(self, found: Sequence[RowMapping], wanted: PageFilter) -> tuple[list[RowMapping], str | None]:
        """Cuts what `walk` found to a page. Returns it with the cursor of the next one; None on the last page."""
        rows = list(found[: wanted.limit])
        if len(found) <= wanted.limit:
            return rows, None
        end = f"{rows[-1][str(self.moment.key)].isoformat()}|{rows[-1][str(self.row_id.key)]}"
        return rows, base64.urlsafe_b64encode(end.encode()).decode().rstrip("=")


class _PageEnd(NamedTuple):
    """The last row of a page."""

    moment: datetime
    row_id: str


_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def _place(cursor: str) -> _PageEnd:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, bar, row_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("|")
        place = _PageEnd(_moment.validate_python(moment), row_id)
    except (ValueError, binascii.Error, ValidationError) as error:
        raise InvalidCursor from error
    if not bar or clean(row_id) != row_id:
        raise InvalidCursor
    return place
