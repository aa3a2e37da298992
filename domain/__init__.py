"""The vocabulary of AIS and every decision it makes: pure functions and frozen values, no clock, no randomness, no I/O.

| floor | room | holds |
|---|---|---|
| 6 | `notices.py` | what people are told of, and in which words |
| 5 | `desk/` | the coordinator: its state, and how everything changes it |
| 4 | `deciding.py`, `books.py`, `paper/` | a cycle's choice; a real account's books; the paper venue |
| 3 | `risk/`, `accounting.py` | limits, guards, measures; fills and what they come to |
| 2 | `trading/` | the vocabulary: markets, instructions, orders, proposals, decisions, assessments |
| 1 | `health/`, `keys.py` | clocks, disks, and whether the books agree; keys of the API and their roles |
| 0 | `values.py`, `likeness.py` | numbers, times, texts; the name that a misspelt one looks like |

A room imports from the floors below its own.
"""
