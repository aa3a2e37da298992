"""The state of a real account's books as a reading reports it, and the warnings that follow."""

from pydantic import Field

from domain.values import Value

MAX_NAMED = 5


class BooksSeen(Value):
    """Facts about the books, for people; bounded. `holder` is another desk that holds the account."""

    differences: list[str] = Field(default_factory=list)
    gaps: list[str] = Field(default_factory=list)
    strangers: list[str] = Field(default_factory=list)
    holder: str | None = None


HELD = "the account belongs to another desk"


def warnings_of(found: BooksSeen) -> dict[str, str | None]:
    """The warnings, one line per topic; None if a topic needs no warning."""
    held = f"{HELD}: {found.holder!r}: two desks may not trade on one account; kill one of them"
    return {
        "books_differ": _warning("the books differ from the exchange", found.differences),
        "books_not_whole": _warning("the books are not whole", found.gaps),
        "foreign_orders": _warning("orders at the exchange that this desk did not send", found.strangers, ", "),
        "account_held": held if found.holder else None,
    }


def _warning(what: str, facts: list[str], between: str = "; ") -> str | None:
    return f"{what}: {between.join(facts)}" if facts else None


def hold(found: BooksSeen | None) -> str | None:
    """Why the desk takes no new risk; None if nothing speaks against it."""
    return f"{HELD}: {found.holder!r}" if found and found.holder else None
