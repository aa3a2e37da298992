"""Sends one message to one channel, in its own process, which is ended at its time limit.

A target may accept a connection and never answer, or answer one byte at a time. A thread that waits for it cannot be ended, but a
process can. Only that process imports Apprise, so that a worker has neither its memory nor its log, which may contain URLs.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from domain.notices import NoticeMessage
from notify.channels import Channel

# For the sending alone: importing Apprise takes a second, and many on a busy machine. Both together are less than
# HELD_SECONDS.
LIMIT_SECONDS = 20.0
START_SECONDS = 25.0
READY = b"ready"
ENDS_SECONDS = 1.0
SENDER = Path(__file__).with_name("sender.py")
# No key of AIS or of Temporal is handed to a library that talks to strangers.
_INHERITED = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip

T = TypeVar("T")


class Delivery(NamedTuple):
    """What became of a message: `error` is None if the target accepted it."""

    error: str | None


class SenderFailed(Exception):
    """The sending process did not do its work; the text says why, and contains no URL."""


async def deliver(channel: Channel, message: NoticeMessage, seconds: float = LIMIT_SECONDS) -> Delivery:
    """Sends a message; never raises, and sends for no longer than `seconds`."""
    asked = {"url": channel.url, "title": message.title, "body": message.body, "critical": message.is_critical}
    try:
        answer = await _run(asked, seconds)
    except SenderFailed as error:
        return Delivery(str(error))
    return Delivery(None if answer.get("sent") is True else str(answer.get("why")))


async def not_understood(channels: Sequence[Channel], seconds: float = LIMIT_SECONDS) -> list[int]:
    """The numbers, from 1, of channels whose URL Apprise does not understand. Raises SenderFailed if that cannot be found out."""
    answer = await _run({"urls": [channel.url for channel in channels]}, seconds)
    return [number + 1 for number in answer["wrong"]]


async def _run(asked: dict[str, Any], seconds: float) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name.upper() in _INHERITED}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(SENDER), env=environment, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise SenderFailed(f"no process could be started: {error.strerror}") from None
    try:
        await _bounded(_handed_over(process, asked), START_SECONDS, "the sending process was not ready")
        printed, _ = await _bounded(process.communicate(), seconds, "no answer")
        answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    except (ValueError, IndexError):
        raise SenderFailed("the sending process died") from None
    finally:
        await _end(process)
    return answer


async def _handed_over(process: asyncio.subprocess.Process, asked: dict[str, Any]) -> None:
    """Returns once the process has read its message and imported what it sends with, or has broken off."""
    assert process.stdin
    assert process.stdout
    with suppress(ConnectionError):
        process.stdin.write(json.dumps(asked).encode())
        process.stdin.write_eof()
        await process.stdin.drain()
    while (line := await process.stdout.readline()) and line.strip() != READY:
        pass


async def _bounded(waited: Coroutine[Any, Any, T], seconds: float, missing: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await waited
    except TimeoutError:
        raise SenderFailed(f"{missing} within {seconds:g} s") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDS_SECONDS):
                await process.wait()
