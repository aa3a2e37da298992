"""Heads of requests that are not valid HTTP: finds what is wrong, and mends those of kills.

A kill must work whatever its query and its other headers contain. So its head is mended: control characters in a value are
replaced so that no check accepts the value, characters that no target holds are replaced, and lines that are not headers are
left out. No other request is mended.
"""

import re

MAX_BYTES = 64 * 1024
END = b"\r\n\r\n"
TOO_LARGE = "The head of the request is larger than 64 KiB."
TOO_LATE = "The head of the request did not arrive in time."

_KILL = re.compile(rb"POST (?:https?://[^/ ]+)?/control/kill-switch(?:\?.*)? HTTP/1\.[01]", re.DOTALL)
_ORIGIN = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)
_UNREADABLE = b"/target-that-cannot-be-read"
_BARE_ENDS = (b"\n\n", b"\n\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_TARGET = re.compile(rb"[^\x21-\x7e]")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_OWN = frozenset({b"connection", b"upgrade", b"expect"})
# Not ASCII, so every check of a value refuses it.
_NOTHING = b"\xff"


def is_kill(head: bytes) -> bool:
    """Whether its first line is complete and requests a kill."""
    first, end, _ = head.partition(b"\n")
    return bool(end) and _KILL.fullmatch(first.removesuffix(b"\r")) is not None


def path(target: bytes) -> bytes:
    """The target of a request without scheme and host, which decide nothing here: one that the parser cannot read, such as a port
    above 65535, would end the connection without an answer."""
    if target.startswith(b"/"):
        return target
    rest = _ORIGIN.sub(b"", target, count=1)
    return rest if rest.startswith(b"/") else _UNREADABLE


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The head, what ends it, and what follows. Asked for each piece that arrives: until the head is whole or too long, this only
    searches. A head of short lines, sent byte by byte, would otherwise hold up kills.
    """
    if not _has_bare_ends(data):
        return data.partition(END)
    found = [(at, end) for end in _BARE_ENDS if (at := data.find(end)) >= 0]
    if not found:
        return _with_crlf(data) if len(data) > MAX_BYTES else data, b"", b""
    at, end = min(found)
    return _with_crlf(data[:at].removesuffix(b"\r")), end, data[at + len(end) :]


def _has_bare_ends(head: bytes) -> bool:
    """Whether its lines end in line feeds alone, as the first one shows: so whoever types a kill into netcat sends it."""
    first, end, _ = head.partition(b"\n")
    return bool(end) and not first.endswith(b"\r")


def _with_crlf(head: bytes) -> bytes:
    return head.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def mended(head: bytes, with_body: bool = True) -> bytes:
    """The same request as valid HTTP, which closes its connection."""
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    # Nobody reads the query of a kill, but the parser refuses `?reason=обвал` as curl sends it.
    first = b" ".join([method, _NO_TARGET.sub(b"_", target), version])
    kept = [header for line in lines if (header := _mended_header(line, with_body))]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + END


def _mended_header(line: bytes, with_body: bool) -> bytes | None:
    match = _HEADER.fullmatch(line)
    name = match[1].lower() if match else b""
    if match is None or name in _OWN or (name in _FRAMING and (not with_body or _CONTROL.search(match[2]))):
        return None
    return match[1] + b": " + _CONTROL.sub(_NOTHING, match[2].strip(b" \t"))


def flaw(head: bytes) -> str:
    """What is wrong with the head, for the answer. It quotes no value, since any may contain a key."""
    _, *lines = head.partition(END)[0].split(b"\r\n")
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match and _CONTROL.search(match[2]):
            return f"The header {match[1].decode()[:64]} holds a control character; send only printable characters."
    return "This is not an HTTP/1.1 request that can be read: check its first line and its headers."
