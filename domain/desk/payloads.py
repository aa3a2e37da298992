"""Reads a command from whatever reached the coordinator.

The incident behind this file: a signal handler with a typed parameter drops a bare string, fails the workflow task for ever
on two inputs, and ignores an unknown encoding. Here every payload can be read, and whatever it holds, a kill kills.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from domain.desk.commands import DEFAULT_ACTOR, Command, Source
from domain.desk.facts import FACTS, MAX_COMMAND_ID_CHARS, read_facts, short_text
from domain.desk.states import CommandKind
from domain.likeness import MAX_NAME_CHARS, Names
from domain.values import clean, is_endless

MAX_REASON_CHARS = 500
MAX_ACTOR_CHARS = 128
CANCELLATION_ACTOR = "cancel"
CANCELLATION_REASON = "workflow cancellation requested"
# The API's own limit. A longer input is not read, which bounds the cost of a signal.
MAX_INPUT_BYTES = 64 * 1024
# Inputs of one signal that are read. Any further ones are ignored.
MAX_INPUTS = 16
# Deeply nested input costs a hundred times as much to read as a long text. A reason of 500 brackets is still read.
MAX_BRACKETS = 1_000
# If a reason is not a text, only so many of its values are shown, and only so deep.
MAX_VALUES, MAX_DEPTH = 30, 20
# No command with numbers of its own is longer. Exact numbers cost four times as much to read as floats: 800 kills, each with
# 15,000 of them, took a new worker longer than a workflow task may.
MAX_EXACT_BYTES = 2_048
# parse_float keeps 0.1 exact. A NaN in a payload must not become a number: int refuses it.
_JSON = json.JSONDecoder(parse_float=Decimal, parse_constant=int)
_LONG_JSON = json.JSONDecoder(parse_constant=int)
DEFAULT_REASONS = {CommandKind.KILL: "manual kill switch", CommandKind.PAUSE: "manual pause"}

_KINDS = {kind.value: kind for kind in CommandKind}
_SIGNALS = Names(_KINDS)
_ENVELOPE = frozenset({"command_id", "reason", "actor", "sent_at"})
_FIELDS = {kind: _ENVELOPE | facts for kind, facts in FACTS.items()}


class RawPayload(NamedTuple):
    """One input of a signal as it arrived: Temporal's encoding name and the bytes."""

    encoding: str
    data: bytes


def kind_of(signal_name: str) -> CommandKind | None:
    """The command with this signal name, after trimming and case-folding; None for an unknown name."""
    # Temporal allows long names; none of ours is.
    return _KINDS.get(signal_name.strip().casefold()) if len(signal_name) <= MAX_NAME_CHARS else None


def nearest_name(signal_name: str) -> str:
    """The known signal that looks most like `signal_name`."""
    return _SIGNALS.nearest(signal_name)


def read_command(kind: CommandKind, payloads: Sequence[RawPayload], fallback_id: str) -> Command:
    """Reads a command from a signal's payloads. Never raises: `problem` names what cannot be read."""
    try:
        return _read(kind, payloads, fallback_id)
    except Exception as error:
        # Payloads can be malformed in ways that nobody foresees. An exception here would fail the workflow task for ever,
        # and block a kill in it (a number with a huge exponent did).
        problem = f"the input cannot be read: {type(error).__name__}"
        reason = DEFAULT_REASONS.get(kind, "")
        return Command(command_id=fallback_id, kind=kind, reason=reason, problem=problem, named=False)


def read_cancellation(text: str, fallback_id: str) -> Command:
    """Reads a workflow cancellation as a kill. `text` is the request's reason: either the JSON of a kill signal, or the
    kill's reason in a person's words."""
    payload = text if text.lstrip().startswith("{") else json.dumps(text or CANCELLATION_REASON)
    command = read_command(CommandKind.KILL, [RawPayload("json/plain", payload.encode())], fallback_id)
    if command.problem and not command.named:
        command = read_command(CommandKind.KILL, [RawPayload("json/plain", json.dumps(text).encode())], fallback_id)
    actor = CANCELLATION_ACTOR if command.actor == DEFAULT_ACTOR else command.actor
    return command.model_copy(update={"source": Source.CANCEL, "actor": actor})


def _read(kind: CommandKind, payloads: Sequence[RawPayload], fallback_id: str) -> Command:
    fields, problem = _read_fields(payloads)
    allowed = _FIELDS.get(kind)
    # Not sorted: 16 inputs of 64 KiB may have a hundred thousand fields.
    if allowed is not None and not fields.keys() <= allowed:
        unknown = min(fields.keys() - allowed)
        problem = f"unknown field {unknown[:64]!r}; allowed are {', '.join(sorted(allowed))}"
    command_id = short_text(fields.get("command_id"), MAX_COMMAND_ID_CHARS)
    actor = short_text(fields.get("actor"), MAX_ACTOR_CHARS)
    sent_at, sent_problem = _read_sent_at(fields.get("sent_at"))
    form: type[Command] = Command
    facts: dict[str, Any] = {"kind": kind}
    try:
        form, facts = read_facts(kind, fields)
    except ValueError as error:
        problem = problem or str(error)
    reason = _read_reason(fields.get("reason")) or DEFAULT_REASONS.get(kind, "")
    return form(
        command_id=command_id or fallback_id,
        actor=actor or DEFAULT_ACTOR,
        reason=reason,
        source=Source.OPERATOR if actor else Source.SIGNAL,
        sent_at=sent_at,
        problem=problem or sent_problem,
        named=bool(command_id),
        **facts,
    )


def _read_fields(payloads: Sequence[RawPayload]) -> tuple[dict[str, Any], str | None]:
    fields: dict[str, Any] = {}
    texts: list[str] = []
    problem, payloads = None, payloads[:MAX_INPUTS]
    decoder = _JSON if sum(len(payload.data) for payload in payloads) <= MAX_EXACT_BYTES else _LONG_JSON
    for payload in payloads:
        if len(payload.data) > MAX_INPUT_BYTES:
            problem = f"an input of {len(payload.data)} bytes is too large; at most {MAX_INPUT_BYTES} are read"
            continue
        try:
            value = _decode(payload, decoder)
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


def _decode(payload: RawPayload, decoder: json.JSONDecoder) -> Any:
    if payload.encoding == "binary/null" or not payload.data:
        return None
    if payload.data.count(b"[") + payload.data.count(b"{") > MAX_BRACKETS:
        raise ValueError("it is nested more deeply than any command")
    return decoder.decode(payload.data.decode(json.detect_encoding(payload.data), "surrogatepass"))


def _read_reason(value: Any) -> str:
    if value in (None, ""):
        return ""
    text = value if isinstance(value, str) else json.dumps(_head(value, [MAX_VALUES]), default=str)
    return clean(text)[:MAX_REASON_CHARS]


def _head(value: Any, left: list[int], depth: int = MAX_DEPTH) -> Any:
    """The first `left` of the values in a value."""
    if not isinstance(value, list | dict):
        return "..." if is_endless(value) else value
    if not depth:
        return "..."
    found = []
    for each in value.items() if isinstance(value, dict) else enumerate(value):
        if left[0] <= 0:
            break
        left[0] -= 1
        found.append((each[0], _head(each[1], left, depth - 1) if isinstance(each[1], list | dict | int) else each[1]))
    return dict(found) if isinstance(value, dict) else [each for _, each in found]


def _read_sent_at(value: Any) -> tuple[datetime | None, str | None]:
    if value is None:
        return None, None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None, "sent_at must be an ISO 8601 time with an offset"
    return (moment, None) if moment.tzinfo else (None, "sent_at needs an offset, such as +00:00")
