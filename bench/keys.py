"""What a check of a key costs with one key and with 10,000, for a right key and each kind of wrong one.

The floor is one SHA-256 and one comparison: what a check took when there was AIS_API_KEY alone.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from api.keys import KeyRing
from bench.subject import Pair, Sample, Steps, Subject
from domain.keys import SECRET_BYTES, AccessKey, Role, key_id, read_key, write_key
from tests.api.world import KEY

SLICES = 200
CALLS = 500


def ring_of(count: int) -> tuple[KeyRing, list[str]]:
    """A ring of so many keys, and their texts."""
    texts = [write_key(key_id(os.urandom(8)), os.urandom(SECRET_BYTES)) for _ in range(count)]
    shown = [key for text in texts if (key := read_key(text.encode()))]
    made = [
        AccessKey(key.key_id, key.digest, f"key-{number}", Role.VIEWER, None, datetime.now(UTC), "bench")
        for number, key in enumerate(shown)
    ]
    ring = KeyRing(KEY, "main")
    ring.take({key.key_id: key for key in made})
    return ring, texts


def tokens(texts: list[str]) -> dict[str, str]:
    """One of each kind."""
    text = texts[len(texts) // 2]
    return {
        "AIS_API_KEY": KEY,
        "a named key": text,
        "its id, another secret": write_key(text.split("_")[1], os.urandom(SECRET_BYTES)),
        "an id that nobody has": write_key("0" * 10, os.urandom(SECRET_BYTES)),
        "mistyped": text[:-1] + ("0" if text[-1] != "0" else "1"),
        "no key of this form": "guessed",
    }


def slices_of(check: Callable[[], object]) -> Sample:
    """Seconds of the processor of one call, over a slice: one alone is shorter than what the clock itself takes."""

    def sample() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            check()
        return (time.thread_time() - began) / CALLS

    return sample


def _check(ring: KeyRing, token: bytes) -> Callable[[], object]:
    return lambda: ring.check(token)


def pairs(many: int) -> Steps:
    """One for each kind of token and number of keys."""
    floor = slices_of(lambda: hmac.compare_digest(hashlib.sha256(KEY.encode()).digest(), bytes(32)))
    for count in (1, many):
        ring, texts = ring_of(count)
        for name, token in tokens(texts).items():
            yield Pair(f"{name}, {count:,} known", slices_of(_check(ring, token.encode())), floor, SLICES)


SUBJECT = Subject("keys", "a check of an API key, CPU time", "one SHA-256 and one comparison", pairs, 10_000, "keys")
