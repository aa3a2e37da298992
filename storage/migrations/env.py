"""Alembic runs this; `storage.migrate` has put the connection, its transaction and the lock in place."""

from alembic import context

from storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
