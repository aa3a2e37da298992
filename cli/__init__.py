"""The command line: `ais`, its commands, and `ais dev`."""

from datetime import UTC, datetime

# Taken before all other imports, which take a second: a kill after this moment cannot be the one that a restart is to undo.
STARTED_AT = datetime.now(UTC)
