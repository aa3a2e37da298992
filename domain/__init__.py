"""The vocabulary of AIS and every decision it makes: pure functions and frozen values, no clock, no randomness, no I/O.

| layer | module | holds |
|---|---|---|
| 6 | `notices.py` | what notifications tell people, and in which words |
| 5 | `desk/` | the coordinator: its state, and how everything changes it |
| 4 | `deciding.py`, `books.py`, `paper/` | a cycle's choice; a real account's books; the paper venue |
| 3 | `risk/`, `accounting.py` | limits, guards, measures; an account added up from its fills |
| 2 | `trading/` | the vocabulary: markets, instructions, orders, proposals, decisions, assessments |
| 1 | `health/`, `keys.py` | clocks, disks, and whether the books agree; keys of the API and their roles |
| 0 | `values.py`, `likeness.py`, `audit.py` | numbers, times, texts; the name most like a misspelt one; the audit chain |

Each module or package imports only from the layers below its own.
"""
