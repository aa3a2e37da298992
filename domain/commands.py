"""Commands: what an operator asks, read from whatever reached the coordinator.

The incident behind this file: a signal handler with a typed parameter drops a bare string, fails the workflow task for ever
on two inputs, and ignores an unknown encoding. Here every payload can be read, and whatever it holds, a kill kills.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from domain.likeness import MAX_NAME_CHARS, Names
from domain.limits import Limits, refuse_unknown
from domain.proposals import REQUEST_FIELDS, ProposalRequest, read_request
from domain.states import CommandKind
from domain.symbols import normalise_symbols
from domain.values import Moment, Value

MAX_REASON_CHARS = 500
MAX_ACTOR_CHARS = 128
MAX_COMMAND_ID_CHARS = 128
MAX_SYMBOLS = 200
MAX_FRACTION_DIGITS = 20
MAX_NUMBER_CHARS = 40
MAX_REMEMBERED_REASON_CHARS = 100
DEFAULT_ACTOR = "temporal"
CANCELLATION_ACTOR = "cancel"
CANCELLATION_REASON = "workflow cancellation requested"
# As much as the API takes. A longer input is not read, so that the price of a signal is bounded by this.
MAX_INPUT_BYTES = 64 * 1024
# Of one signal; the rest are not looked at.
MAX_INPUTS = 16
# What is nested without end costs a hundred times what a long text does.
MAX_BRACKETS = 2_000
DEFAULT_REASONS = {CommandKind.KILL: "manual kill switch", CommandKind.PAUSE: "manual pause"}

_KINDS = {kind.value: kind for kind in CommandKind}
_SIGNALS = Names(_KINDS)
_COMMON_FIELDS = frozenset({"command_id", "reason", "actor", "sent_at"})
_FIELDS = {
    CommandKind.CANCEL_ALL: _COMMON_FIELDS | {"symbols"},
    CommandKind.DELEVERAGE: _COMMON_FIELDS | {"symbol", "reduce_pct"},
    CommandKind.RESTART: _COMMON_FIELDS | {"kill_number", "database_id"},
    CommandKind.SET_LIMITS: _COMMON_FIELDS | {"limits"} | set(Limits.model_fields),
    CommandKind.PROPOSE: _COMMON_FIELDS | REQUEST_FIELDS,
}


class Source(StrEnum):
    """Where a kill came from; a label of metrics."""

    OPERATOR = "operator"
    SIGNAL = "signal"
    CANCEL = "cancel"
    RISK = "risk"
    DATABASE = "database"


class Command(Value):
    """One command. `problem` names what could not be read: it refuses the command, a kill excepted."""

    command_id: str
    kind: CommandKind
    actor: str = DEFAULT_ACTOR
    reason: str = ""
    source: Source = Source.SIGNAL
    sent_at: Moment | None = None
    symbols: list[str] | None = None
    symbol: str | None = None
    reduce_pct: Decimal | None = None
    kill_number: int | None = None
    # Of a restart: the database that is to be the desk's from now on.
    database_id: str | None = None
    limits: dict[str, str] | None = None
    proposal: ProposalRequest | None = None
    problem: str | None = None
    # Whether its sender chose the id, and may ask for what became of it.
    named: bool = True

    @cached_property
    def fingerprint(self) -> str:
        """What makes two commands with one id the same command: its kind and its body."""
        body: list[Any] = [
            self.kind.value,
            self.reason,
            self.symbols,
            self.symbol,
            _text(self.reduce_pct),
            self.kill_number,
        ]
        # Only where they are set: what was remembered before there were such commands keeps its fingerprint.
        body += [self.limits] if self.limits else []
        body += [self.proposal.model_dump(mode="json")] if self.proposal else []
        body += [{"database_id": self.database_id}] if self.database_id else []
        return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]


class RawPayload(NamedTuple):
    """One input of a signal as it arrived: Temporal's encoding name and the bytes."""

    encoding: str
    data: bytes


def kind_of(signal_name: str) -> CommandKind | None:
    """The command that a signal's name means, after trimming and case-folding; None for an unknown name."""
    # A name may be as long as Temporal lets it; none of ours is.
    return _KINDS.get(signal_name.strip().casefold()) if len(signal_name) <= MAX_NAME_CHARS else None


def nearest_name(signal_name: str) -> str:
    """The known signal that looks most like `signal_name`."""
    return _SIGNALS.nearest(signal_name)


def read_command(kind: CommandKind, payloads: Sequence[RawPayload], fallback_id: str) -> Command:
    """The command that these payloads mean. Never raises: what cannot be read is named in `problem`."""
    try:
        return _read(kind, payloads, fallback_id)
    except Exception as error:
        # Nobody knows every way in which a payload can be odd, and one that raised here would fail the workflow task for
        # ever, a kill's too (measured: a number with a huge exponent did).
        problem = f"the input cannot be read: {type(error).__name__}"
        reason = DEFAULT_REASONS.get(kind, "")
        return Command(command_id=fallback_id, kind=kind, reason=reason, problem=problem, named=False)


def read_cancellation(text: str, fallback_id: str) -> Command:
    """The kill that a workflow cancellation means. `text` is the request's reason: what a kill signal carries, as JSON, or
    the kill's reason in a person's words."""
    payload = text if text.lstrip().startswith("{") else json.dumps(text or CANCELLATION_REASON)
    command = read_command(CommandKind.KILL, [RawPayload("json/plain", payload.encode())], fallback_id)
    if command.problem and not command.named:
        command = read_command(CommandKind.KILL, [RawPayload("json/plain", json.dumps(text).encode())], fallback_id)
    actor = CANCELLATION_ACTOR if command.actor == DEFAULT_ACTOR else command.actor
    return command.model_copy(update={"source": Source.CANCEL, "actor": actor})


def _read(kind: CommandKind, payloads: Sequence[RawPayload], fallback_id: str) -> Command:
    fields, problem = _read_fields(payloads)
    unknown = sorted(set(fields) - _FIELDS.get(kind, set(fields)))
    if unknown:
        problem = f"unknown field {unknown[0][:64]!r}; allowed are {', '.join(sorted(_FIELDS[kind]))}"
    command_id = _short_text(fields.get("command_id"), MAX_COMMAND_ID_CHARS)
    actor = _short_text(fields.get("actor"), MAX_ACTOR_CHARS)
    sent_at, sent_problem = _read_sent_at(fields.get("sent_at"))
    arguments, argument_problem = _read_arguments(kind, fields)
    return Command(
        command_id=command_id or fallback_id,
        kind=kind,
        actor=actor or DEFAULT_ACTOR,
        reason=_read_reason(fields.get("reason")) or DEFAULT_REASONS.get(kind, ""),
        source=Source.OPERATOR if actor else Source.SIGNAL,
        sent_at=sent_at,
        problem=problem or argument_problem or sent_problem,
        named=bool(command_id),
        **arguments,
    )


def _read_fields(payloads: Sequence[RawPayload]) -> tuple[dict[str, Any], str | None]:
    fields: dict[str, Any] = {}
    texts: list[str] = []
    problem = None
    for payload in payloads[:MAX_INPUTS]:
        if len(payload.data) > MAX_INPUT_BYTES:
            problem = f"an input of {len(payload.data)} bytes is too large; {MAX_INPUT_BYTES} are read"
            continue
        try:
            value = _decode(payload)
        except (ValueError, RecursionError, ArithmeticError):
            problem = f"an input of encoding {payload.encoding[:40]!r} cannot be read as JSON"
            continue
        if isinstance(value, dict):
            fields.update(value)
        elif isinstance(value, str):
            texts.append(value)
        elif value is not None:
            problem = "the input must be one JSON object, a string (the reason) or nothing"
    if texts and not fields.get("reason"):
        fields["reason"] = " ".join(texts)
    return fields, problem


def _decode(payload: RawPayload) -> Any:
    if payload.encoding == "binary/null" or not payload.data:
        return None
    if payload.data.count(b"[") + payload.data.count(b"{") > MAX_BRACKETS:
        raise ValueError("no command is nested like that")
    # parse_float keeps 0.1 exact; a NaN in a payload must not become a number.
    return json.loads(payload.data, parse_float=Decimal, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _read_arguments(kind: CommandKind, fields: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    read = _ARGUMENTS.get(kind)
    try:
        return ({} if read is None else read(fields)), None
    except ValueError as error:
        return {}, str(error)


def read_symbols(value: Any) -> list[str] | None:
    """Symbols of a cancel_all: None means every symbol; ValueError for an empty list or anything but texts."""
    if value is None:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SYMBOLS or set(map(type, value)) != {str}:
        raise ValueError("symbols must be a list of at least one symbol, or null for every symbol")
    return normalise_symbols(value)


def _read_proposal(fields: dict[str, Any]) -> dict[str, Any]:
    proposal = read_request(fields)
    return {"proposal": proposal, "symbol": proposal.symbol}


def _read_deleverage(fields: dict[str, Any]) -> dict[str, Any]:
    symbol = fields.get("symbol")
    if not isinstance(symbol, str):
        raise ValueError('deleverage needs a symbol, such as {"symbol": "BTCUSDT", "reduce_pct": 0.5}')
    return {"symbol": normalise_symbols([symbol])[0], "reduce_pct": read_reduce_pct(fields.get("reduce_pct"))}


def read_reduce_pct(value: Any) -> Decimal:
    """A fraction of the position, 0 < x <= 1; ValueError for booleans, texts and everything outside."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("reduce_pct must be a number with 0 < reduce_pct <= 1")
    try:
        fraction = Decimal(str(value))
    except InvalidOperation as error:  # pragma: no cover - str of a number is always a number
        raise ValueError("reduce_pct must be a number") from error
    if not fraction.is_finite() or not 0 < fraction <= 1 or len(fraction.as_tuple().digits) > MAX_FRACTION_DIGITS:
        raise ValueError("reduce_pct must be a number with 0 < reduce_pct <= 1")
    return fraction


def read_limits(fields: Mapping[str, Any]) -> dict[str, str]:
    """The limits of a set_limits, by name: under `limits`, or beside it. Numbers as texts; ValueError for anything else."""
    nested = fields.get("limits")
    if nested is not None and not isinstance(nested, Mapping):
        raise ValueError('limits must be an object, such as {"limits": {"max_leverage": 1.5}}')
    beside = {name: value for name, value in fields.items() if name in Limits.model_fields}
    asked = {**beside, **(nested or {})}
    if not asked:
        raise ValueError('set_limits needs at least one limit, such as {"limits": {"max_leverage": 1.5}}')
    # At once, before hundreds of them are read as numbers.
    refuse_unknown(asked)
    return {name: _number_text(name, value) for name, value in asked.items()}


def _number_text(name: str, value: Any) -> str:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | Decimal | str)
        or len(str(value)) > MAX_NUMBER_CHARS
    ):
        raise ValueError(f"{name} must be a number of at most {MAX_NUMBER_CHARS} characters")
    return str(value).strip()


def _read_restart(fields: dict[str, Any]) -> dict[str, Any]:
    database_id = fields.get("database_id")
    if not isinstance(database_id, str | None):
        raise ValueError("database_id must be the id of a database, as `ais restart` sends it")
    named = _short_text(database_id, MAX_COMMAND_ID_CHARS) or None
    return {"kill_number": _read_kill_number(fields.get("kill_number")), "database_id": named}


def _read_kill_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("restart needs kill_number, the whole number that the status query shows; use `ais restart`")
    return value


def _read_reason(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return clean(text)[:MAX_REASON_CHARS]


def _read_sent_at(value: Any) -> tuple[datetime | None, str | None]:
    if value is None:
        return None, None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None, "sent_at must be an ISO 8601 time with an offset"
    return (moment, None) if moment.tzinfo else (None, "sent_at needs an offset, such as +00:00")


def _short_text(value: Any, limit: int) -> str:
    text = clean(str(value)) if value is not None and not isinstance(value, dict | list) else ""
    return text if len(text) <= limit else ""


def clean(text: str) -> str:
    """Without lone surrogates and NUL, which PostgreSQL and UTF-8 refuse, and without outer blanks."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "").strip()


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number.normalize())


_ARGUMENTS: dict[CommandKind, Callable[[dict[str, Any]], dict[str, Any]]] = {
    CommandKind.CANCEL_ALL: lambda fields: {"symbols": read_symbols(fields.get("symbols"))},
    CommandKind.DELEVERAGE: _read_deleverage,
    CommandKind.RESTART: _read_restart,
    CommandKind.SET_LIMITS: lambda fields: {"limits": read_limits(fields)},
    CommandKind.PROPOSE: _read_proposal,
}
