"""`ais dev`: the whole system on one machine from wheels alone, for development and for a first look.

`stack.py` puts the parts together; each part (`postgres.py`, `temporal.py`, `process.py`) knows how to start, when it
answers, and how it is stopped.
"""
