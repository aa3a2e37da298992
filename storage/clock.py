"""The database's clock."""

from datetime import datetime

from sqlalchemy import Connection, func, select


def server_time(connection: Connection) -> datetime:
    """The time now, not the time when the transaction began."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment
