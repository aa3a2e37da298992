"""Reads the body of a kill. Whatever it contains and however it arrives, the result is a reason, never an error."""

import asyncio
import json
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from api.body_limit import MAX_BODY_BYTES
from domain.desk.payloads import DEFAULT_REASONS, MAX_REASON_CHARS
from domain.desk.states import CommandKind
from domain.values import clean

# An announced body that does not arrive must not hold up the kill.
BODY_SECONDS = 1.0
DEFAULT_REASON = DEFAULT_REASONS[CommandKind.KILL]


class KillBody(NamedTuple):
    """The reason, and warnings about what could not be read."""

    reason: str
    warnings: tuple[str, ...] = ()


async def read_kill_body(request: Request) -> KillBody:
    """Reads the body of this request: at most 64 KiB, for at most one second."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    return KillBody(DEFAULT_REASON, ("the body is larger than 64 KiB and was not read",))
    except TimeoutError:
        return KillBody(DEFAULT_REASON, (f"the body did not arrive within {BODY_SECONDS:g} s",))
    except ClientDisconnect:
        return KillBody(DEFAULT_REASON, ("the body ended early",))
    return parse_kill_body(bytes(data))


def parse_kill_body(data: bytes) -> KillBody:
    """Interprets these bytes as the body of a kill."""
    if not data.strip():
        return KillBody(DEFAULT_REASON)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return KillBody(DEFAULT_REASON, ("the body is not JSON and was not read",))
    if isinstance(value, dict):
        reason, warnings = _from_reason(value.get("reason"))
        if unknown := [name for name in value if name != "reason"]:
            warnings += (f"unknown field {unknown[0][:64]!r} was ignored",)
        return KillBody(reason, warnings)
    if isinstance(value, str):
        return _from_reason(value)
    return KillBody(DEFAULT_REASON, () if value is None else ("the body is not a JSON object and was not read",))


def _from_reason(value: object) -> KillBody:
    if value is None:
        return KillBody(DEFAULT_REASON)
    if not isinstance(value, str):
        return KillBody(DEFAULT_REASON, ("reason is not a string and was ignored",))
    text = clean(value)
    if len(text) > MAX_REASON_CHARS:
        # Cleaned again: the cut may leave a blank at the end, which the coordinator would strip.
        return KillBody(clean(text[:MAX_REASON_CHARS]), (f"reason was cut to {MAX_REASON_CHARS} characters",))
    return KillBody(text or DEFAULT_REASON, () if text else ("reason is blank",))
