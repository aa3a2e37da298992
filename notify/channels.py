"""Who is notified: an Apprise URL and its level. The URL contains secrets, so a channel has a name without any."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

CRITICAL = "critical"


@dataclass(frozen=True)
class Channel:
    """One target. Its name is the same in every process and after every restart."""

    name: str
    critical_only: bool
    url: str = field(repr=False)


def channels_of(entries: Iterable[tuple[str, str]]) -> list[Channel]:
    """Channels of levels and URLs."""
    return [Channel(_name(level, url), level == CRITICAL, url) for level, url in entries]


def _name(level: str, url: str) -> str:
    # 32 bits distinguish a few channels. They reveal nothing about a random password, but can confirm a guess of a weak one:
    # there is no key that every process has (docs/notifications.md says so).
    digest = hashlib.blake2s(url.encode(), digest_size=4).hexdigest()
    return f"{level}-{url.partition('://')[0].lower()}-{digest}"
