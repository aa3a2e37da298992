"""The door: uvicorn's HTTP protocol, with an end to everything that a stranger can hold open without a key.

    connected ── 10 s ──▶ first byte ── 5 s ──▶ head whole ── answer ── 10 s, 32 MiB ──▶ body whole ── 75 s idle ──▶ closed
                              │
                              └─ no HTTP ─┬─ a kill: mended and carried out
                                          └─ others: 400, JSON

No byte prolongs any of these times. A body that somebody waits for has its time in `api.limits` and `api.kill_body`: only
the application knows whether it waits. `ais api` serves with this class; by hand: `uvicorn --http api.door:Door --ws none`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import request_head
from api.auth import is_authenticated
from api.doorkeeper import STATE_KEY, Doorkeeper, Reason

FIRST_BYTE_SECONDS = 10.0
HEAD_SECONDS = 5.0
# After the answer: what the client still sends is read and thrown away, or it would find a reset instead of the answer.
DRAIN_SECONDS = 10.0
DRAIN_BYTES = 32 * 1024 * 1024
# For an answer that its client does not read.
UNREAD_SECONDS = 20.0


class _Place(Enum):
    """Where in a request the connection is."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()
    # In the head of a kill that is no HTTP, and is not there to its end yet.
    BROKEN_KILL = auto()
    # Answered for the last time: whatever still comes is thrown away.
    LEAVING = auto()


class _Exit:
    """The transport; closing it is done so that its client can read what was answered."""

    def __init__(self, transport: asyncio.Transport, door: "Door") -> None:
        self._transport = transport
        self._door = door
        self.is_left = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is answered here."""
        return self.is_left or self._transport.is_closing()

    def close(self) -> None:
        """Ends our half alone while the client is still sending: bytes that nobody reads make the kernel reset it."""
        if self.is_closing():
            return
        if not self._door.is_being_sent_to:
            self.shut()
            return
        self.is_left = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._door.drain()

    def shut(self) -> None:
        """Closes it, once all is written or the time for that is over."""
        self._transport.close()
        self._door.give(UNREAD_SECONDS, self._transport.abort)


class Door(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Every request gets a copy of this state; the keeper is no business of theirs.
        self.app_state = dict(self.app_state)
        self._keeper: Doorkeeper = self.app_state.pop(STATE_KEY)
        self._exit: _Exit
        self._place = _Place.BETWEEN
        self._head = bytearray()
        self._drained = 0
        self._had_key = False
        self._clock: asyncio.TimerHandle | None = None
        self._unread_clock: asyncio.TimerHandle | None = None

    # What the keeper and the exit ask.

    @property
    def has_shown_a_key(self) -> bool:
        """Whether one of its requests was authenticated."""
        return self._had_key or is_authenticated(self._request)

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def _request(self) -> Mapping[str, Any]:
        scope: Any = self.scope
        return scope or {}

    @property
    def is_being_sent_to(self) -> bool:
        """Whether its client may be in the middle of sending."""
        return self._place is not _Place.BETWEEN

    def make_room(self) -> None:
        """Closes it at once."""
        self._exit.abort()

    def drain(self) -> None:
        """From here on what comes is thrown away, for so long."""
        self.flow.resume_reading()
        self.give(DRAIN_SECONDS, self._body_is_late)

    def give(self, seconds: float, then: Callable[[], None]) -> None:
        """Sets the one clock of this connection."""
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, then)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    # What the server and the transport tell.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins the time for the first byte."""
        self._exit = _Exit(transport, self)
        super().connection_made(self._exit)  # type: ignore[arg-type]
        self.give(FIRST_BYTE_SECONDS, self._head_is_late)
        self._keeper.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        self._keeper.leave(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_clock()
        self._stop_unread_clock()

    def shutdown(self) -> None:
        """The server stops: nobody waits for those who only hold a connection."""
        if self.is_idle:
            self._exit.shut()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parses, as long as anything is expected."""
        self._unset_keepalive_if_required()
        if self._place in (_Place.BODY, _Place.LEAVING):
            self._count_drained(data)
        else:
            self._add_to_head(data)
        if self._place is _Place.BROKEN_KILL:
            self._mend_when_whole()
        elif self._place is not _Place.LEAVING:
            self._parse(data)

    def _add_to_head(self, data: bytes) -> None:
        """The first byte of a head starts its clock, and no other touches it."""
        if not self._head:
            self.give(HEAD_SECONDS, self._head_is_late)
        self._head += data

    def _count_drained(self, data: bytes) -> None:
        if self.is_idle:
            self._drained += len(data)
        if self._drained > DRAIN_BYTES:
            self._body_is_late()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Answered as if it had not asked for one.
            pass
        except httptools.HttpParserError:
            self._cannot_parse()
        else:
            self._look_at_what_is_missing()

    def _look_at_what_is_missing(self) -> None:
        if len(self._head) > request_head.MAX_BYTES:
            self._cannot_parse()
        elif self._head:
            self._keeper.dawdles(self)

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._unread_clock = self.loop.call_later(UNREAD_SECONDS, self._answer_is_not_read)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stop_unread_clock()

    def _stop_unread_clock(self) -> None:
        if self._unread_clock is not None:
            self._unread_clock.cancel()
            self._unread_clock = None

    # What the parser and the application tell.

    def on_message_begin(self) -> None:
        """A head begins; it may have come in one piece with the request before it."""
        self._had_key = self.has_shown_a_key
        self._place = _Place.HEAD
        super().on_message_begin()
        if self._clock is None:
            self.give(HEAD_SECONDS, self._head_is_late)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._place = _Place.BODY
        self._head.clear()
        self._drained = 0
        self._stop_clock()
        self._keeper.asks(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole: whoever was about to leave goes."""
        super().on_message_complete()
        self._place = _Place.BETWEEN
        self._stop_clock()
        if self._exit.is_left:
            self._exit.shut()

    def on_response_complete(self) -> None:
        """Answered. What is left of the body is read to its end, so that the connection can go on."""
        super().on_response_complete()
        if self.is_idle:
            self._keeper.dawdles(self)
        if self._place is _Place.BODY and self.is_idle and not self._exit.is_closing():
            self.give(DRAIN_SECONDS, self._body_is_late)

    # Heads that cannot be read.

    def _cannot_parse(self) -> None:
        if self._place is _Place.BODY or not self.is_idle:
            # An answer is on its way already, and a second one would end up in the middle of it.
            self._leave(Reason.BROKEN)
        elif request_head.is_kill(bytes(self._head)):
            self._place = _Place.BROKEN_KILL
            self._mend_when_whole()
        elif len(self._head) > request_head.MAX_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, request_head.TOO_LARGE, Reason.BROKEN)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, request_head.flaw(bytes(self._head)), Reason.BROKEN)

    def _mend_when_whole(self) -> None:
        """Has the kill carried out as soon as its head has ended, or has become too long to be read on."""
        head, end, body = bytes(self._head).partition(request_head.END)
        if not end and len(head) <= request_head.MAX_BYTES:
            self._keeper.dawdles(self)
            return
        self._keeper.count(Reason.MENDED)
        if not end:
            # The last line may be half of one.
            head = head.rpartition(b"\r\n")[0]
        if not (end and self._parse_anew(request_head.mended(head) + body)):
            # The body's length is no number, or is not known yet: the kill is its head alone.
            self._parse_anew(request_head.mended(head, with_body=False))
            self._place = _Place.LEAVING

    def _parse_anew(self, data: bytes) -> bool:
        """Whether these bytes hold a head."""
        self._place = _Place.BETWEEN
        self._head.clear()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            return not self.is_idle
        return True

    def _leave(self, reason: Reason) -> None:
        """Says no more than what is being answered."""
        self._keeper.count(reason)
        self._place = _Place.LEAVING
        if self.is_idle:
            self._exit.close()
        else:
            self.cycle.keep_alive = False

    def _refuse(self, status: HTTPStatus, detail: str, reason: Reason) -> None:
        self._keeper.count(reason)
        self._place = _Place.LEAVING
        body = json.dumps({"detail": detail}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), *(b": ".join(pair) for pair in headers)]
        self._exit.write(b"\r\n".join(lines) + request_head.END + body)
        self._exit.close()

    # Times that are over.

    def _head_is_late(self) -> None:
        self._stop_clock()
        if not self.is_idle:
            self._leave(Reason.HEAD_TIME)
        elif self._place is _Place.BETWEEN and not self._head:
            # Nothing was asked, so an answer would be taken for that of the next question.
            self._keeper.count(Reason.HEAD_TIME)
            self._exit.shut()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, request_head.TOO_LATE, Reason.HEAD_TIME)

    def _body_is_late(self) -> None:
        self._keeper.count(Reason.BODY_TIME)
        self._exit.abort()

    def _answer_is_not_read(self) -> None:
        self._keeper.count(Reason.UNREAD)
        self._exit.abort()
