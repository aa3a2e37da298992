"""The schema's history, in alembic's form."""
