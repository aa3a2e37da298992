"""Carries out `ais notify test`: sends one message to each channel at once, without the database."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from domain.notices import Notice, NoticeKind, message
from notify.channels import Channel
from notify.delivery import deliver


class ChannelResult(NamedTuple):
    """The result for one channel."""

    text: str
    was_sent: bool


def try_all(desk: str, channels: Sequence[Channel]) -> Iterator[ChannelResult]:
    """Sends all messages at the same time; yields the results in the order of the setting."""
    now = datetime.now(UTC)
    notice = Notice(event_id="test", kind=NoticeKind.TEST, at=now, text="A test: `ais notify test` sent this")
    asked = message(desk, [notice], 1)

    async def all_of_them() -> list[str | None]:
        return [done.error for done in await asyncio.gather(*(deliver(channel, asked) for channel in channels))]

    for number, (channel, error) in enumerate(zip(channels, asyncio.run(all_of_them()), strict=True), 1):
        yield ChannelResult(f"{number}  {channel.name}  {f'not sent: {error}' if error else 'sent'}", error is None)
