"""A desk's terms: what a start fixes, and what a person may change with a restart while nothing is under way.

The mode and its account determine which workers and which venue serve the desk, so changing them has further conditions
(`domain/desk/moving.py`).
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Protocol

from domain.desk import moving
from domain.desk.carried import Carried
from domain.desk.commands import NewTerms, Restart
from domain.desk.states import Mode
from domain.desk.status import Status
from domain.risk.limits import DATA_AGE_CYCLES, Limits
from domain.values import plain

UNVERIFIED = (
    "new terms need a kill that is verified; wait until `ais status` says so, or restart with the desk's own terms"
)


class ConfiguredDesk(Protocol):
    """A desk as a process's settings describe it."""

    @property
    def mode(self) -> str: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def cycle_seconds(self) -> float: ...


def configured_terms(desk: ConfiguredDesk, kill_flattens: bool | None = None) -> NewTerms:
    """The terms that the settings ask for, the same in every process. A process that does not read AIS_KILL_FLATTENS leaves
    it out."""
    return NewTerms(
        mode=Mode(desk.mode),
        symbols=list(desk.symbols),
        cycle_seconds=desk.cycle_seconds,
        kill_flattens=kill_flattens,
    )


def changes(now: Mapping[str, Any], terms: NewTerms) -> list[str]:
    """What the terms would change, as `cycle_seconds 5 -> 1`. `now` is what `terms_of` or `shown_terms` returned."""
    new = terms.model_dump(mode="json", exclude_none=True)
    if "cycle_seconds" in new:
        new["max_data_age_seconds"] = data_age(now["max_data_age_seconds"], now["cycle_seconds"], new["cycle_seconds"])
    return [f"{name} {_as_text(now[name])} -> {_as_text(value)}" for name, value in new.items() if now[name] != value]


def data_age(age: float, cycle_seconds: float, new_cycle_seconds: float) -> float:
    """The limit on the age of data. It follows the cycle time until somebody sets it to something else."""
    return DATA_AGE_CYCLES * new_cycle_seconds if age == DATA_AGE_CYCLES * cycle_seconds else age


def terms_of(c: Carried) -> dict[str, Any]:
    """The terms as the coordinator has them."""
    return {
        "mode": c.mode.value,
        "account": c.account,
        "symbols": c.symbols,
        "cycle_seconds": c.cycle_seconds,
        "kill_flattens": c.kill_flattens,
        "max_data_age_seconds": c.limits.max_data_age_seconds,
    }


def shown_terms(status: Status) -> dict[str, Any]:
    """The terms as the status shows them."""
    limits = Limits.model_validate(status.limits)
    shown = status.model_dump(mode="json", include={"mode", "account", "symbols", "cycle_seconds", "kill_flattens"})
    return {**shown, "max_data_age_seconds": limits.max_data_age_seconds}


def difference_text(status: Status, settings: NewTerms) -> str | None:
    """A warning for people if the settings differ from the desk's own terms, naming the command that adopts them; None if
    they agree. Without it, people would take the settings for what applies."""
    if not (differs := changes(shown_terms(status), settings)):
        return None
    return (
        f"the settings differ from what the desk has: {'; '.join(differs)}. The desk keeps its own; "
        f"to adopt these: {how_to_adopt(status, settings)}"
    )


def warn_if_different(say: Callable[[str], object], settings: NewTerms, status: Status) -> None:
    """Says where these settings differ from the desk's own terms, if anywhere."""
    if difference := difference_text(status, settings):
        say(difference)


def how_to_adopt(status: Status, settings: NewTerms) -> str:
    """The commands that give the desk these terms."""
    if settings.mode not in (None, status.mode):
        return f"kill it, then `ais restart --from-settings --mode {settings.mode}`, with a worker of that mode up"
    asked = settings.symbols or status.symbols
    others = settings.model_copy(update={"symbols": None})
    if asked[: len(status.symbols)] == status.symbols and not changes(shown_terms(status), others):
        return f"pause it, then `ais symbols add {' '.join(asked[len(status.symbols) :])}`"
    return "kill it, then `ais restart --from-settings`"


def refusal(c: Carried, restart: Restart) -> str | None:
    """Why the desk cannot take the terms of this restart now, or None."""
    terms = restart.terms or NewTerms()
    verified = c.mode is Mode.SHADOW or (c.kill is not None and c.kill.verified_at is not None)
    if not verified and changes(terms_of(c), terms):
        return UNVERIFIED
    if why := moving.refusal(c, restart):
        return why
    if c.mode is Mode.PAPER and not moving.moves(c, terms) and terms.symbols is not None and c.observation is not None:
        # On paper, a position without a price would make every later reading incomplete.
        for held in c.observation.positions:
            if held.quantity and held.symbol not in terms.symbols:
                why = "on paper, a symbol that is not whitelisted has no market data"
                return f"close the position of {held.symbol} first: {why}"
    return None


def adopt(c: Carried, terms: NewTerms) -> None:
    """Takes the terms. A removed symbol stays covered while it may have an order or a position: kills, cancels and
    deleverages still reach it."""
    if terms.symbols is not None:
        leaving = {*c.seen_symbols, *c.symbols} - set(terms.symbols)
        c.seen_symbols = sorted(leaving if (standing := moving.standing(c)) is None else leaving & standing)
        c.symbols, c.row_dirty = terms.symbols, True
    if terms.cycle_seconds is not None:
        age = data_age(c.limits.max_data_age_seconds, c.cycle_seconds, terms.cycle_seconds)
        c.limits = Limits.model_validate({**c.limits.model_dump(), "max_data_age_seconds": age})
        c.cycle_seconds = terms.cycle_seconds
    if terms.kill_flattens is not None:
        c.kill_flattens = terms.kill_flattens
    if moving.moves(c, terms):
        moving.move(c, terms)


def _as_text(value: Any) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, list):
        return ",".join(value)
    return f"{plain(Decimal(str(value)))}" if isinstance(value, float) else str(value).lower()
