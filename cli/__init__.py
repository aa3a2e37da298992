"""The command line: `ais`, its commands, and `ais dev`.

| file | holds |
|---|---|
| `app.py`, `commands/`, `options.py`, `terminal.py` | the command line: commands, options, output and failures |
| `desk.py`, `lifecycle.py`, `opening.py`, `moving.py` | `ais start`, `restart`, `release` |
| `status.py` | `ais status`, `limits` |
| `connecting.py`, `refusals.py`, `terms.py` | shared: the way to Temporal, texts of refusals, what the settings fix |
| `operate.py`, `actor.py` | `ais kill`, `pause`, `resume`, `cancel-all`, `deleverage` |
| `desks.py`, `watch.py`, `log.py` | `ais desks`, `watch`, `log` |
| `tables.py`, `moments.py` | tables for people, and moments as people type them |
| `doctor.py`, `examine/` | `ais doctor` |
| `keys.py`, `notify.py` | `ais keys`, `ais notify` |
| `audit.py`, `audit_chain.py`, `audit_export.py`, `audit_file.py`, `audit_rebuild.py` | `ais audit` |
| `dev/` | `ais dev` |
| `reference.py` | writes docs/cli.md |
"""

from datetime import UTC, datetime

# Taken before all other imports, which take a second: a restart must not undo a kill that came after this moment.
STARTED_AT = datetime.now(UTC)
