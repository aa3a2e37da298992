"""Pages, newest first: each goes on exactly where the one before it ended, whatever was written meanwhile (keyset)."""

import base64
import binascii
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, tuple_

from domain.values import Moment, Value
from storage.cleaning import clean


class InvalidCursor(ValueError):
    """A cursor that no page has given out."""

    def __init__(self) -> None:
        super().__init__("the cursor is not one that a page of this report has given out")


class PageFilter(Value):
    """Which rows, and how many. What is None does not filter; `until` is exclusive."""

    limit: int = 50
    cursor: str | None = None
    symbol: str | None = None
    since: Moment | None = None
    until: Moment | None = None


class Keyset(NamedTuple):
    """The columns that a walk follows; ids settle what was written in the same microsecond."""

    moment: ColumnElement[datetime]
    row_id: ColumnElement[str]

    def select(self, statement: Select[Any], wanted: PageFilter) -> Select[Any]:
        """The statement's rows from where the cursor stands, within the filter's times; without the limit."""
        if wanted.since is not None:
            statement = statement.where(self.moment >= wanted.since)
        if wanted.until is not None:
            statement = statement.where(self.moment < wanted.until)
        if wanted.cursor is not None:
            place = _place(wanted.cursor)
            statement = statement.where(tuple_(self.moment, self.row_id) < tuple_(place.moment, place.row_id))
        return statement.order_by(self.moment.desc(), self.row_id.desc())

    def read(
        self, connection: Connection, statement: Select[Any], wanted: PageFilter
    ) -> tuple[list[RowMapping], str | None]:
        """One page of `select`, and the cursor of the next one; None on the last page."""
        # One row more than asked tells whether there is a next page.
        limited = self.select(statement, wanted).limit(wanted.limit + 1)
        found = connection.execute(limited).mappings().all()
        rows = list(found[: wanted.limit])
        return rows, self._cursor(rows[-1]) if len(found) > wanted.limit else None

    def _cursor(self, row: RowMapping) -> str:
        text = f"{row[str(self.moment.key)].isoformat()}|{row[str(self.row_id.key)]}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class _Place(NamedTuple):
    """The last row of a page."""

    moment: datetime
    row_id: str


_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


def _place(cursor: str) -> _Place:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, bar, row_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("|")
        place = _Place(_moment.validate_python(moment), row_id)
    except (ValueError, binascii.Error, ValidationError) as error:
        raise InvalidCursor from error
    if not bar or clean(row_id) != row_id:
        raise InvalidCursor
    return place
