"""The door: uvicorn's HTTP protocol, with a time limit on everything that a stranger can hold open without a key.

    connected ── 10 s ──▶ first byte ── 5 s ──▶ head whole ── answer ── 10 s, 32 MiB ──▶ body whole ── 75 s idle ──▶ closed
                              │
                              └─ not HTTP ┬─ a kill: mended and carried out
                                          └─ others: 400, JSON

No byte prolongs any of these times. The time for a body that a handler waits for is in `api.body_limit` and `api.kill_body`,
since only the application knows whether it waits. `ais api` serves with this class; by hand: `uvicorn --http api.door:Door
--ws none`.
"""

import asyncio
import json
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import request_head
from api.auth import is_authenticated
from api.connections import STATE_KEY, CloseReason, Connections
from api.streams import end, is_endless

FIRST_BYTE_SECONDS = 10.0
HEAD_SECONDS = 5.0
# After the answer, whatever the client still sends is read and discarded. Otherwise it would see a reset instead of the answer.
DRAIN_SECONDS = 10.0
DRAIN_BYTES = 32 * 1024 * 1024
# For an answer that its client does not read; less for a stream, whose client has to keep up.
UNREAD_SECONDS = 20.0
UNREAD_STREAM_SECONDS = 5.0


class _RequestPart(Enum):
    """The part of a request that the connection is in."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()
    # In the incomplete head of a kill that is not valid HTTP.
    BROKEN_KILL = auto()
    # Answered for the last time: whatever still arrives is discarded.
    LEAVING = auto()


class _Exit:
    """The transport, closed in a way that lets the client read its answer."""

    def __init__(self, transport: asyncio.Transport, door: "Door") -> None:
        self._transport = transport
        self._door = door
        self.is_left = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more will be answered."""
        return self.is_left or self._transport.is_closing()

    def close(self) -> None:
        """While the client is still sending, closes only our half: unread bytes would make the kernel reset the connection."""
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
        """Closes it once everything is written, or the time for that is over."""
        self._transport.close()
        self._door.give(UNREAD_SECONDS, self._transport.abort)


class Door(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Every request gets a copy of this state, which must not contain the keeper.
        self.app_state = dict(self.app_state)
        self._keeper: Connections = self.app_state.pop(STATE_KEY)
        self._exit: _Exit
        self._place = _RequestPart.BETWEEN
        self._head = bytearray()
        # Bytes that arrived with the previous request and may begin the next head.
        self._behind = b""
        self._drained = 0
        self._had_key = False
        # Its client has closed its half, and sends nothing more.
        self._is_heard_out = False
        # The request that is being answered; those behind it wait.
        self._answering: dict[str, Any] = {}
        self._clock: asyncio.TimerHandle | None = None
        self._unread_clock: asyncio.TimerHandle | None = None

    # Used by the keeper and the exit.

    @property
    def has_shown_a_key(self) -> bool:
        """Whether one of its requests was authenticated."""
        request: Any = self.scope
        return self._had_key or is_authenticated(request or {})

    @property
    def is_idle(self) -> bool:
        """Whether none of its requests is being answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def is_endless(self) -> bool:
        """Whether its answer is a stream, whose end nobody waits for."""
        return not self.is_idle and is_endless(self._answering)

    @property
    def is_being_sent_to(self) -> bool:
        """Whether its client may be in the middle of sending."""
        return self._place is not _RequestPart.BETWEEN

    def make_room(self) -> None:
        """Closes it at once."""
        self._exit.abort()

    def drain(self) -> None:
        """Discards whatever arrives from now on, for a limited time."""
        self.flow.resume_reading()
        if self._place is _RequestPart.BROKEN_KILL:
            self._place = _RequestPart.LEAVING
        self.give(DRAIN_SECONDS, self._body_is_late)

    def give(self, seconds: float, then: Callable[[], None]) -> None:
        """Sets the one clock of this connection."""
        self._stop_clock()
        self._clock = self.loop.call_later(seconds, then)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    # Called by the server and the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first byte."""
        self._exit = _Exit(transport, self)
        super().connection_made(self._exit)  # type: ignore[arg-type]
        self.give(FIRST_BYTE_SECONDS, self._head_is_late)
        self._keeper.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._keeper.leave(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_clock()
        self._stop_unread_clock()

    def shutdown(self) -> None:
        """The server stops: idle connections and streams are closed at once."""
        if self.is_idle or self.is_endless:
            self._exit.shut()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parses the data, unless it is to be discarded."""
        self._unset_keepalive_if_required()
        is_thrown_away = self._place in (_RequestPart.BODY, _RequestPart.LEAVING)
        self._behind = data if is_thrown_away else b""
        if is_thrown_away:
            self._drained += len(data) if self.is_idle else 0
            if self._drained > DRAIN_BYTES:
                self._body_is_late()
        else:
            # Only the first byte of a head starts its clock.
            if not self._head:
                self.give(HEAD_SECONDS, self._head_is_late)
            self._head += data
        if self._place is _RequestPart.BROKEN_KILL:
            self._mend_when_whole()
        elif self._place is not _RequestPart.LEAVING:
            self._parse(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more, as `… | nc -N` does, and still gets the answer that it waits for. Before, a kill sent in
        this way was carried out without a word."""
        self._is_heard_out = not (self.is_idle or self.is_being_sent_to or is_endless(self._answering))
        return self._is_heard_out

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._offers_upgrade:
                self._parse_without_upgrade()
        except httptools.HttpParserError:
            self._cannot_parse()
        else:
            if len(self._head) > request_head.MAX_BYTES:
                self._cannot_parse()
            elif self._head and self.is_idle:
                self._keeper.dawdles(self)

    @property
    def _offers_upgrade(self) -> bool:
        """Whether the client would go on in another protocol. The parser then skips the body of this request."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _parse_without_upgrade(self) -> None:
        """Has the request read as if it had offered no upgrade: without its body, a command would say something else."""
        head, ending, rest = bytes(self._head).lstrip(b"\r\n").partition(request_head.END)
        if not (ending and self._parse_anew(request_head.mended(head) + rest)):
            self._cannot_parse()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        seconds = UNREAD_STREAM_SECONDS if self.is_endless else UNREAD_SECONDS
        self._unread_clock = self.loop.call_later(seconds, self._answer_is_not_read)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stop_unread_clock()

    def _stop_unread_clock(self) -> None:
        if self._unread_clock is not None:
            self._unread_clock.cancel()
            self._unread_clock = None

    # Called by the parser and the application.

    def on_message_begin(self) -> None:
        """A head begins; it may have arrived together with the previous request."""
        self._had_key = self.has_shown_a_key
        self._place = _RequestPart.HEAD
        self._head += self._behind
        self._behind = b""
        super().on_message_begin()
        if self._clock is None:
            self.give(HEAD_SECONDS, self._head_is_late)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._offers_upgrade:
            return
        self._place = _RequestPart.BODY
        self._behind = bytes(self._head).partition(request_head.END)[2]
        self._head.clear()
        self._drained = 0
        self._stop_clock()
        self._keeper.asks(self)
        is_first = self.is_idle
        self.url = request_head.path(self.url)
        super().on_headers_complete()
        self._answer(self.cycle.scope if is_first else self._answering)

    def on_body(self, body: bytes) -> None:
        """A part of the body. What follows a chunked body cannot be told apart here, and is not needed."""
        self._behind = self._behind[len(body) :] if self._behind.startswith(body) else b""
        super().on_body(body)

    def _answer(self, request: Any) -> None:
        """Begins an answer. A stream with a request behind it ends: it would run for ever, even after the client left."""
        self._answering = request
        if self.pipeline or self._place in (_RequestPart.BROKEN_KILL, _RequestPart.LEAVING):
            end(request)

    def on_message_complete(self) -> None:
        """The body is complete: a connection that is to be closed is closed now."""
        if self._offers_upgrade:
            return
        super().on_message_complete()
        self._place = _RequestPart.BETWEEN
        self._stop_clock()
        if self._exit.is_left:
            self._exit.shut()

    def on_response_complete(self) -> None:
        """Answered. The rest of the body is read to its end, so that the connection can be used again."""
        following = self.pipeline[-1][0].scope if self.pipeline else None
        super().on_response_complete()
        if following is not None:
            self._answer(following)
        if self.is_idle:
            self._keeper.dawdles(self)
        if self._place is _RequestPart.BROKEN_KILL and self.is_idle and not self._exit.is_closing():
            self._unset_keepalive_if_required()
            self._mend_when_whole()
        elif self._place is _RequestPart.BODY and self.is_idle and not self._exit.is_closing():
            self.give(DRAIN_SECONDS, self._body_is_late)
        elif self._is_heard_out and self.is_idle and not self._exit.is_closing():
            self._exit.shut()

    # Heads that cannot be read.

    def _cannot_parse(self) -> None:
        if self._place is not _RequestPart.BODY and request_head.is_kill(bytes(self._head)):
            self._place = _RequestPart.BROKEN_KILL
            end(self._answering)
            self._mend_when_whole()
        elif self._place is _RequestPart.BODY or not self.is_idle:
            # An answer is being written, and a second one would end up in the middle of it.
            self._leave(CloseReason.BROKEN)
        elif len(self._head) > request_head.MAX_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, request_head.TOO_LARGE, CloseReason.BROKEN)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, request_head.flaw(bytes(self._head)), CloseReason.BROKEN)

    def _mend_when_whole(self) -> None:
        """Has the kill carried out as soon as its head ends or becomes too long."""
        head, ending, body = request_head.split(bytes(self._head))
        if not ending and len(head) <= request_head.MAX_BYTES:
            self._keeper.dawdles(self)
            return
        if not self.is_idle:
            # Its turn comes after the answer that is being written. Nothing is read until then.
            self._stop_clock()
            self.flow.pause_reading()
            return
        self._keeper.count(CloseReason.MENDED)
        if not ending:
            # The last line may be incomplete.
            head = head.rpartition(b"\r\n")[0]
        if not (ending and self._parse_anew(request_head.mended(head) + body)):
            # The length of the body is invalid or not known yet, so only the head counts.
            self._parse_anew(request_head.mended(head, with_body=False))
            self._place = _RequestPart.LEAVING

    def _parse_anew(self, data: bytes) -> bool:
        """Parses these bytes from the start; whether they contain a whole head."""
        self._place = _RequestPart.BETWEEN
        self._head.clear()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            return not self.is_idle
        return True

    def _leave(self, reason: CloseReason) -> None:
        """Closes the connection after the current answer; a stream ends now."""
        self._keeper.count(reason)
        self._place = _RequestPart.LEAVING
        if self.is_idle:
            self._exit.close()
        else:
            self.cycle.keep_alive = False
            end(self._answering)

    def _refuse(self, status: HTTPStatus, detail: str, reason: CloseReason) -> None:
        self._keeper.count(reason)
        self._place = _RequestPart.LEAVING
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

    # When time runs out.

    def _head_is_late(self) -> None:
        self._stop_clock()
        if not self.is_idle:
            self._leave(CloseReason.HEAD_TIME)
        elif self._place is _RequestPart.BETWEEN and not self._head:
            # Nothing was asked, and the client would take an answer for that of its next request.
            self._keeper.count(CloseReason.HEAD_TIME)
            self._exit.shut()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, request_head.TOO_LATE, CloseReason.HEAD_TIME)

    def _body_is_late(self) -> None:
        self._keeper.count(CloseReason.BODY_TIME)
        self._exit.abort()

    def _answer_is_not_read(self) -> None:
        self._keeper.count(CloseReason.UNREAD)
        self._exit.abort()
