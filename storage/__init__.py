"""Everything that is SQL: activities write through it, the API reads through it."""
