"""Everything that is SQL: activities write through it, the API reads through it.

| file | holds |
|---|---|
| `tables.py`, `migrations/`, `migrate.py`, `indexes.py`, `blockers.py` | the schema, and how it is brought up to date |
| `database.py`, `clock.py`, `cleaning.py`, `paging.py` | transactions with a time limit, the database's clock, texts, pages |
| `installation.py`, `rights.py`, `writable.py` | the database's id, the role's rights, whether a row could be written |
| `decisions.py`, `instructions.py`, `desks.py`, `claims.py` | the decision log, what was sent, the latch, claims |
| `paper.py`, `books.py`, `totals.py`, `equity.py` | the paper venue, a real account's books, sums of both, the equity curve |
| `keys.py`, `notices.py`, `notice_queue.py` | keys of the API; notifications, and sending them |
| `audit/` | the audit chain |
| `redis_connection.py`, `disks.py`, `own_thread.py` | no SQL: the way to Redis, free disk space, threads for what may hang |

docs/architecture.md says which process writes which table.
"""
