"""The warnings in the status. Each has a topic, under which it is removed once its cause is gone."""

from collections import Counter
from enum import StrEnum

from domain.desk.carried import MAX_WARNINGS, Carried, DeskWarning
from domain.values import printable


class Topic(StrEnum):
    """The subject of a warning. A topic may have several warnings, told apart by `about`: one per order, clock or folder."""

    ACCOUNT_HELD = "account_held"
    BOOKS_DIFFER = "books_differ"
    BOOKS_NOT_WHOLE = "books_not_whole"
    BREACH_UNCONFIRMED = "breach_unconfirmed"
    CLOCK = "clock"
    COMMAND_FAILED = "command_failed"
    DISK = "disk"
    FOREIGN_DATABASE = "foreign_database"
    FOREIGN_ORDERS = "foreign_orders"
    LATCH_UNREAD = "latch_unread"
    LATCH_UNWRITTEN = "latch_unwritten"
    LOG_UNWRITTEN = "log_unwritten"
    ORDER_UNKNOWN = "order_unknown"
    PAST_IS_OLD = "past_is_old"
    POSITION_GREW = "position_grew"
    REDUCTION_FAILED = "reduction_failed"
    SEARCH_ATTRIBUTE = "search_attribute"
    UNKNOWN_SIGNAL = "unknown_signal"


def warn(c: Carried, topic: Topic, text: str, about: str = "") -> None:
    """Adds a warning, in place of any with the same topic and `about`. Keeps only a few: where there are too many, the oldest
    of the most frequent topic goes, so that no flood of mistyped signals hides what else is wrong."""
    others = (w for w in c.warnings if (w.topic, w.about) != (topic, about))
    c.warnings = [*others, DeskWarning(topic=topic, about=about, text=printable(text))]
    if len(c.warnings) > MAX_WARNINGS:
        most, _ = Counter(w.topic for w in c.warnings).most_common(1)[0]
        c.warnings.remove(next(w for w in c.warnings if w.topic == most))


def unwarn(c: Carried, topic: Topic, about: str | None = None) -> None:
    """Removes the warnings of a topic, since their cause is gone. With `about`, removes only that one."""
    if c.warnings:
        c.warnings = [w for w in c.warnings if w.topic != topic or about not in (None, w.about)]
