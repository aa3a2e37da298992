"""The checks of `ais doctor`, one function each, in modules by subject.

| file | checks |
|---|---|
| `configured.py` | settings, the mode, the key of the audit chain |
| `temporal.py` | Temporal, coordinator, worker, the desk's terms and warnings |
| `database.py` | PostgreSQL, schema, rights, decision log, audit chain, clock |
| `machine.py` | API, disk space |
| `findings.py` | what a check gets and returns |
"""
