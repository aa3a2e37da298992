"""Market sources: where bars come from."""
