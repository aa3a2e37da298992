"""The command line: `ais`, its commands, and `ais dev`."""

from datetime import UTC, datetime

# Taken before all other imports, which take a second: a restart must not undo a kill that came after this moment.
STARTED_AT = datetime.now(UTC)
