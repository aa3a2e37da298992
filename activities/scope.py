"""A worker serves one desk in one mode; whatever is meant for another is refused before a venue is touched."""

from temporalio.exceptions import ApplicationError

from activities.calls import WRONG_WORKER, Scope


def refuse_other(mine: Scope, asked: Scope) -> None:
    """Raises where `asked` is not `mine`: the coordinator's mode is fixed at its start, a worker's by its settings."""
    if mine != asked:
        text = (
            f"this worker serves desk {mine.desk!r} in mode {mine.mode.value}, the coordinator runs desk {asked.desk!r} "
            f"in mode {asked.mode.value}; start a worker with AIS_DESK={asked.desk} AIS_MODE={asked.mode.value}"
        )
        raise ApplicationError(text, type=WRONG_WORKER, non_retryable=True)
