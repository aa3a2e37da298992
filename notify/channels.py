"""Who is told: an Apprise URL and its level. The URL holds secrets, so a channel has a name that tells none of them."""

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
    # 32 bits tell a few channels apart. They leave a random password as unknown as it was, but confirm a guess of a weak one:
    # no key is at hand that every process has, and docs/notifications.md says so.
    digest = hashlib.blake2s(url.encode(), digest_size=4).hexdigest()
    return f"{level}-{url.partition('://')[0].lower()}-{digest}"
