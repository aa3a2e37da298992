"""Carries out `ais audit totals`: adds up every record of every account, and compares with the totals that reports use."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import text

from domain.values import printable
from storage import migrate, totals


class Line(NamedTuple):
    """A line to print about one account."""

    text: str
    agrees: bool = True


def audited(url: str, *, rebuild: bool) -> Iterator[Line]:
    """Checks one account after the other. Raises DatabaseUnavailable."""
    with migrate.connections(url, migrate.UPGRADE_SECONDS) as engine:
        with engine.begin() as connection:
            found = totals.accounts(connection)
        if not found:
            yield Line("There is no account yet.")
        for account in found:
            with engine.begin() as connection:
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
                checked = totals.check(connection, account)
            yield from _lines(checked)
            if rebuild:
                with engine.begin() as connection:
                    totals.forget(connection, account)
    if rebuild and found:
        migrate.add_up(url)
        yield Line("The totals are rebuilt.")


def _lines(checked: totals.TotalsCheck) -> Iterator[Line]:
    name = printable(f"{checked.account.start.desk} ({checked.account.books.name})")
    if not checked.differences:
        yield Line(f"{name}: the totals agree; they hold {checked.kept:,} of {checked.records:,} records.")
    for difference in checked.differences:
        yield Line(printable(f"{name}: {difference}"), agrees=False)
    if checked.differences:
        yield Line("`ais audit totals --rebuild` rebuilds them.")
