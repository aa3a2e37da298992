"""A worker serves one desk in one mode on one venue account. It refuses work meant for another before it touches a venue."""

from temporalio.exceptions import ApplicationError

from activities.calls import WRONG_WORKER, Scope


def refuse_other(mine: Scope, asked: Scope) -> None:
    """Raises if `asked` is not `mine`. A coordinator's mode changes only by a restart, a worker's by its settings."""
    if (mine.desk, mine.mode) != (asked.desk, asked.mode):
        text = (
            f"this worker serves desk {mine.desk!r} in mode {mine.mode.value}, the coordinator runs desk {asked.desk!r} "
            f"in mode {asked.mode.value}; start a worker with AIS_DESK={asked.desk} AIS_MODE={asked.mode.value}"
        )
        raise ApplicationError(text, type=WRONG_WORKER, non_retryable=True)
    if other_account(mine, asked):
        raise ApplicationError(account_text(mine, asked), type=WRONG_WORKER, non_retryable=True)


def other_account(mine: Scope, asked: Scope) -> bool:
    """Whether both are the same desk in the same mode, and both accounts are known and differ."""
    same_desk = (mine.desk, mine.mode) == (asked.desk, asked.mode)
    return same_desk and None not in (mine.account, asked.account) and mine.account != asked.account


def account_text(mine: Scope, asked: Scope) -> str:
    """What is wrong, and what to do."""
    return (
        f"this worker has the venue account with the fingerprint {mine.account or 'none'}, desk {asked.desk!r} trades on "
        f"{asked.account or 'none'}: correct AIS_ASTER_ACCOUNT_ID; another account needs a new desk (AIS_DESK)"
    )
