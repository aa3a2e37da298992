"""Targets on loopback that are really sent to: HTTP that may fail, hang or dribble, and mail."""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from notify.channels import Channel, channels_of

PASSWORD = "s3cret-Pa55word"


class HttpTarget(ThreadingHTTPServer):
    """Keeps what it takes. `how`: the status it answers with, `hang` (with 200, once it is `over`) or `dribble` (never whole)."""

    daemon_threads = True
    request_queue_size = 50

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.how: int | str = 200
        self.got: list[dict[str, Any]] = []
        self.asked = 0
        self.over = threading.Event()

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]

    def channel(self, level: str = "info") -> Channel:
        return channels_of([(level, self.url)])[0]

    @property
    def url(self) -> str:
        return f"json://desk:{PASSWORD}@127.0.0.1:{self.server_port}/hook/{PASSWORD}"


class _Handler(BaseHTTPRequestHandler):
    server: HttpTarget

    def do_POST(self) -> None:
        target, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        target.asked += 1
        if target.how == "hang":
            target.over.wait()
        if target.how == "dribble":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not target.over.is_set():
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.1)
            return
        status = 200 if target.how == "hang" else int(target.how)
        if status == 200:
            target.got.append(body)
        with suppress(OSError):
            self.send_response(status)
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class MailTarget(socketserver.ThreadingTCPServer):
    """A mail server that takes everything."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.mails: list[str] = []

    @property
    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.server_address[1]}?from=ais@desk.test&to=anna@desk.test&mode=insecure"


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailTarget
    answers: ClassVar[dict[bytes, bytes]] = {b"EHLO": b"250 here", b"DATA": b"354 go on", b"QUIT": b"221 bye"}

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            self.wfile.write(self.answers.get(line[:4].upper(), b"250 ok") + b"\r\n")
            if line[:4].upper() == b"DATA":
                text = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(text).decode())
                self.wfile.write(b"250 taken\r\n")


@contextmanager
def serving(target: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=target.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        if isinstance(target, HttpTarget):
            target.over.set()
        target.shutdown()
        target.server_close()
