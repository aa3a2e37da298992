"""Imported by the fork server alone, before it makes the first process for an agent.

The incident behind this: every child of `multiprocessing` first imports the program that started it, and for `worker.py`
that took 1.3 s, with Temporal's client and the database's driver in each of them. An agent needs none of it, and after one
that hung had been ended, its next call would have waited for it. Here it is left out, in processes that exist for agents only.
"""

from multiprocessing import spawn


def _leave_it_alone(_main: str) -> None:
    """Instead of importing the main program."""


for _name in ("_fixup_main_from_name", "_fixup_main_from_path"):
    setattr(spawn, _name, _leave_it_alone)
