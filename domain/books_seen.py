"""What a reading of the account carries of a real account's books, and the warnings that come of it."""

from typing import NamedTuple

from pydantic import Field

from domain.values import Value

MAX_NAMED = 5


class BooksSeen(Value):
    """Facts for people, bounded. `holder` is another desk that holds the account."""

    differences: list[str] = Field(default_factory=list)
    gaps: list[str] = Field(default_factory=list)
    strangers: list[str] = Field(default_factory=list)
    holder: str | None = None


class Warnings(NamedTuple):
    """How each kind of warning begins."""

    differ: str = "the books differ from the exchange"
    gaps: str = "the books are not whole"
    strangers: str = "orders at the exchange that this desk did not send"
    holder: str = "the account belongs to another desk"


WARNINGS = Warnings()


def warnings_of(found: BooksSeen) -> list[str]:
    """One line a kind."""
    told = {
        WARNINGS.differ: "; ".join(found.differences),
        WARNINGS.gaps: "; ".join(found.gaps),
        WARNINGS.strangers: ", ".join(found.strangers),
        WARNINGS.holder: found.holder and f"{found.holder!r}: no two desks may trade on one; kill one of them",
    }
    return [f"{beginning}: {text}" for beginning, text in told.items() if text]


def hold(found: BooksSeen | None) -> str | None:
    """Why no new risk is taken; None where there is no such reason."""
    return f"{WARNINGS.holder}: {found.holder!r}" if found and found.holder else None
