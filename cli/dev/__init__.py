"""`ais dev`: runs the whole system on one machine, from Python wheels alone, for development and for a first look.

`stack.py` puts the parts together. Each part (`postgres.py`, `temporal.py`, `programs.py`) knows how to start, how to tell
whether it is up, and how to stop.
"""
