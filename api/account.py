"""A desk's account as a report: recomputed from its records, valued at the coordinator's prices, and compared."""

from collections.abc import Iterator
from decimal import Decimal

from api.models import PortfolioAnswer
from api.reporting import LiveBooks, PaperBooks
from domain.accounting import Holding, Portfolio
from domain.desk.status import ObservationStatus
from domain.values import plain

_COMPUTED = set(PortfolioAnswer.model_fields) - {"valued_at", "differences"}
_COMPARED = ("quantity", "cost", "realised_profit", "fees", "funding")


def portfolio_answer(books: PaperBooks | LiveBooks, observation: ObservationStatus | None) -> PortfolioAnswer:
    """The report. If the coordinator has no reading, the last prices in the records are used."""
    portfolio = books.portfolio
    if observation is not None:
        portfolio = portfolio.marked(observation.market_time, observation.marks)
    return PortfolioAnswer(
        valued_at=observation.market_time if observation else None,
        differences=books.facts if isinstance(books, LiveBooks) else list(differences(books)),
        **{name: _value(portfolio, name) for name in _COMPUTED},
    )


def differences(books: PaperBooks) -> Iterator[str]:
    """Differences between the venue's book and its own records. If there are any, somebody has to look."""
    yield from _difference("balance", books.account.balance, books.portfolio.balance)
    computed = books.portfolio.holdings
    for key in sorted(books.holdings.keys() | computed.keys()):
        kept, found = books.holdings.get(key, Holding()), computed.get(key, Holding())
        for name in _COMPARED:
            yield from _difference(f"{key.symbol} {key.market} {name}", getattr(kept, name), getattr(found, name))


def _difference(what: str, kept: Decimal, computed: Decimal) -> Iterator[str]:
    if kept != computed:
        yield f"{what}: {kept:f} in the account, {computed:f} by its records"


def _value(portfolio: Portfolio, name: str) -> object:
    value = getattr(portfolio, name)
    value = value() if callable(value) else value
    return plain(value) if isinstance(value, Decimal) else value
