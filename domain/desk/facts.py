"""Facts: what each kind of command says besides its envelope. Read from a signal's fields, or refused with a text for
people."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from domain.desk.commands import (
    SAME_TERMS,
    AddSymbols,
    CancelAll,
    Command,
    Deleverage,
    NewTerms,
    Propose,
    Restart,
    SetLimits,
)
from domain.desk.states import CommandKind, Mode
from domain.risk.limits import LIMIT_NAMES, Limits, refuse_unknown
from domain.trading.proposals import REQUEST_FIELDS, read_request
from domain.trading.symbols import normalise_symbol, normalise_symbols
from domain.values import clean, is_endless

MAX_SYMBOLS = 200
MAX_COMMAND_ID_CHARS = 128
MAX_ACCOUNT_CHARS = 64
# For a restart. With shorter cycles the desk would never pause between them, and every reading would count as old.
MIN_CYCLE_SECONDS = 0.1
MAX_CYCLE_SECONDS = 86_400.0
MAX_FRACTION_DIGITS = 20
MAX_NUMBER_CHARS = 40
_NUMBER_TYPES = (int, float, Decimal, str)

FACTS = {
    CommandKind.CANCEL_ALL: frozenset({"symbols"}),
    CommandKind.DELEVERAGE: frozenset({"symbol", "reduce_pct"}),
    CommandKind.RESTART: frozenset({"kill_number", "database_id", "with_positions", *NewTerms.model_fields}),
    CommandKind.SET_LIMITS: frozenset({"limits", *Limits.model_fields}),
    CommandKind.ADD_SYMBOLS: frozenset({"symbols"}),
    CommandKind.PROPOSE: REQUEST_FIELDS,
}


def read_facts(kind: CommandKind, fields: Mapping[str, Any]) -> tuple[type[Command], dict[str, Any]]:
    """The class for such a command, and its facts besides the envelope. Raises ValueError if a fact is missing or wrong."""
    match kind:
        case CommandKind.CANCEL_ALL | CommandKind.ADD_SYMBOLS:
            return _read_listed(kind, read_symbols(fields.get("symbols")))
        case CommandKind.DELEVERAGE:
            symbol = fields.get("symbol")
            if not isinstance(symbol, str):
                raise ValueError('deleverage needs a symbol, such as {"symbol": "BTCUSDT", "reduce_pct": 0.5}')
            symbol = normalise_symbol(symbol)
            return Deleverage, {"symbol": symbol, "reduce_pct": read_reduce_pct(fields.get("reduce_pct"))}
        case CommandKind.RESTART:
            return Restart, _read_restart(fields)
        case CommandKind.SET_LIMITS:
            return SetLimits, {"limits": read_limits(fields)}
        case CommandKind.PROPOSE:
            return Propose, {"proposal": read_request(fields)}
        case _:
            return Command, {"kind": kind}


def _read_listed(kind: CommandKind, symbols: list[str] | None) -> tuple[type[Command], dict[str, Any]]:
    if kind is CommandKind.CANCEL_ALL:
        return CancelAll, {"symbols": symbols}
    if symbols is None:
        raise ValueError('add_symbols needs symbols, such as {"symbols": ["SOLUSDT"]}')
    return AddSymbols, {"symbols": symbols}


def read_symbols(value: Any) -> list[str] | None:
    """The symbols of a cancel_all; None means every symbol. Raises ValueError for an empty list, or for anything but texts."""
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SYMBOLS or set(map(type, value)) != {str}:
        raise ValueError("symbols must be a list of at least one symbol, or null for every symbol")
    return normalise_symbols(value)


def read_reduce_pct(value: Any) -> Decimal:
    """A fraction of the position, 0 < x <= 1. Raises ValueError for booleans, texts and everything outside that range."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or is_endless(value):
        raise ValueError("reduce_pct must be a number with 0 < reduce_pct <= 1")
    try:
        fraction = Decimal(str(value))
    except InvalidOperation as error:  # pragma: no cover - str of a number is always a number
        raise ValueError("reduce_pct must be a number") from error
    if not fraction.is_finite() or not 0 < fraction <= 1 or len(fraction.as_tuple().digits) > MAX_FRACTION_DIGITS:
        raise ValueError("reduce_pct must be a number with 0 < reduce_pct <= 1")
    return fraction


def read_limits(fields: Mapping[str, Any]) -> dict[str, str]:
    """The limits of a set_limits by name, given under `limits` or beside it. The numbers are texts. Raises ValueError for
    anything else."""
    nested = fields.get("limits")
    if nested is not None and not isinstance(nested, Mapping):
        raise ValueError('limits must be an object, such as {"limits": {"max_leverage": 1.5}}')
    beside = {name: value for name, value in fields.items() if name in LIMIT_NAMES}
    asked = {**beside, **(nested or {})}
    if not asked:
        raise ValueError('set_limits needs at least one limit, such as {"limits": {"max_leverage": 1.5}}')
    # Refuse early, before hundreds of values are read as numbers.
    refuse_unknown(asked)
    texts = {}
    for name, value in asked.items():
        # Not isinstance: to it, true is a number. And the text only of a number, since that of a list may be long.
        kind = type(value)
        is_number = kind in _NUMBER_TYPES and not (kind is int and is_endless(value))
        if not is_number or (text := str(value))[MAX_NUMBER_CHARS:]:
            raise ValueError(f"{name} must be a number of at most {MAX_NUMBER_CHARS} characters")
        texts[name] = text.strip()
    return texts


def read_terms(fields: Mapping[str, Any]) -> NewTerms | None:
    """The terms that a restart changes; None if it changes none. Raises ValueError for anything that is not a term."""
    seconds, flattens = fields.get("cycle_seconds"), fields.get("kill_flattens")
    if seconds is not None:
        # Check the number as it is carried: the Decimal 1e-400 is above 0, but as a float it is 0.0.
        is_number = isinstance(seconds, int | float | Decimal) and not isinstance(seconds, bool)
        seconds = float(seconds) if is_number and abs(seconds) < 10 * MAX_CYCLE_SECONDS else 0.0
        if not MIN_CYCLE_SECONDS <= seconds <= MAX_CYCLE_SECONDS:
            raise ValueError(f"cycle_seconds must be a number from {MIN_CYCLE_SECONDS:g} to {MAX_CYCLE_SECONDS:g}")
    if not isinstance(flattens, bool | None):
        raise ValueError("kill_flattens must be true or false")
    mode = fields.get("mode")
    if mode is not None and mode not in [known.value for known in Mode]:
        raise ValueError(f"mode must be one of {', '.join(Mode)}")
    account = fields.get("account")
    if account is not None and (not isinstance(account, str) or short_text(account, MAX_ACCOUNT_CHARS) != account):
        raise ValueError("account must be the fingerprint of a venue account, as `ais restart --mode` sends it")
    terms = NewTerms(
        mode=mode,
        account=account,
        symbols=read_symbols(fields.get("symbols")),
        cycle_seconds=seconds,
        kill_flattens=flattens,
    )
    return terms if terms != SAME_TERMS else None


def _read_restart(fields: Mapping[str, Any]) -> dict[str, Any]:
    kill_number, database_id = fields.get("kill_number"), fields.get("database_id")
    if not isinstance(database_id, str | None):
        raise ValueError("database_id must be the id of a database, as `ais restart` sends it")
    if isinstance(kill_number, bool) or not isinstance(kill_number, int) or not 0 <= kill_number < 2**63:
        raise ValueError("restart needs kill_number, the whole number that the status query shows; use `ais restart`")
    with_positions = fields.get("with_positions") or False
    if not isinstance(with_positions, bool):
        raise ValueError("with_positions must be true or false")
    known = short_text(database_id, MAX_COMMAND_ID_CHARS) or None
    facts = {"kill_number": kill_number, "database_id": known, "terms": read_terms(fields)}
    return {**facts, "with_positions": with_positions}


def short_text(value: Any, limit: int) -> str:
    """The value as a clean text; empty if it is longer than the limit, or not a single value."""
    if value is None or isinstance(value, dict | list) or is_endless(value):
        return ""
    text = clean(str(value))
    return text if len(text) <= limit else ""
