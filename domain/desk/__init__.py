"""The coordinator's logic: the state it carries from run to run, and how commands, readings and results change that state.

| file | holds |
|---|---|
| `carried.py`, `states.py` | the state, and its transitions |
| `commands.py` | what an operator asks, a class for each kind |
| `arrivals.py`, `payloads.py`, `facts.py` | the signals that arrive, and how they are read as commands |
| `applying.py`, `inbox.py`, `observing.py`, `ordering.py` | how commands, proposals, readings and orders change the state |
| `cycle.py`, `ahead.py` | the steps of a cycle, and the choice that may come with its reading |
| `resting.py`, `requoting.py` | resting orders, and orders that replace one |
| `terms.py`, `adding.py`, `moving.py` | the terms of a desk, symbols that are added, and a change of mode |
| `killing.py`, `growth.py`, `enforcing.py` | kills, positions that grew after one, and limits |
| `outbox.py`, `open_cancels.py` | what is still to be written or carried out |
| `latch.py`, `identity.py` | the database: its latch, and which database is the desk's |
| `handover.py`, `versions.py` | packing the state for the next run, and differences of older runs |
| `recording.py`, `warnings.py` | records, rows and warnings of each change |
| `status.py`, `details.py`, `listed.py`, `knowledge.py` | what people see, and what readings need to know |
"""
