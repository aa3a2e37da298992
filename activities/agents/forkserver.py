"""Imported by the fork server alone, before it makes the first process for an agent.

The incident behind this file: every child of `multiprocessing` first imports the program that started it. For `worker.py`
that took 1.3 s, and loaded Temporal's client and the database driver into each child. An agent needs none of it, and after
the worker had ended a hanging agent, the agent's next call had to wait for it. Here these processes skip that import.
"""

from multiprocessing import spawn

for _name in ("_fixup_main_from_name", "_fixup_main_from_path"):
    setattr(spawn, _name, lambda _main: None)
