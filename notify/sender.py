"""What a sending process runs: reads one message from standard input, hands it to Apprise, prints what came of it.

It runs as a script, with nothing of ours imported. It prints numbers and fixed words only: what Apprise and the libraries
under it write may hold URLs with their passwords.
"""

import json
import logging
import os
import re
import signal
import sys
from typing import Any

# Whoever started this may be gone: no wait lasts longer, neither until Apprise is imported nor after that. Twice this is how
# long a channel is held.
LONGEST_SECONDS = 30
READY = "ready"

STATUS = re.compile(r"error=(\d{3})\b")


class Heard(logging.Handler):
    """Keeps the status code that a target answered with."""

    status: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Numbers alone are kept."""
        if found := STATUS.search(record.getMessage()):
            self.status = found[1]


def send(asked: dict[str, Any]) -> dict[str, Any]:
    """Sends one message."""
    apprise = _apprise()
    heard = Heard()
    logging.getLogger("apprise").addHandler(heard)
    logging.getLogger("apprise").setLevel(logging.INFO)
    target = apprise.Apprise()
    if not target.add(asked["url"]):
        return {"sent": False, "why": "Apprise does not understand this URL"}
    kind = apprise.NotifyType.FAILURE if asked["critical"] else apprise.NotifyType.INFO
    sent = bool(target.notify(asked["body"], title=asked["title"], notify_type=kind, body_format="text"))
    answered = f"the target answered {heard.status}" if heard.status else "the target did not take it"
    return {"sent": sent, "why": None if sent else answered}


def check(asked: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the URLs that Apprise does not understand."""
    apprise = _apprise()
    wrong = [number for number, url in enumerate(asked["urls"]) if apprise.Apprise.instantiate(url) is None]
    return {"wrong": wrong}


def _apprise() -> Any:
    """The library. Says when it is imported: on a busy machine that may take longer than the sending."""
    import apprise

    print("\n" + READY, flush=True)
    signal.alarm(LONGEST_SECONDS)
    return apprise


def main() -> None:
    """Sends or checks, as the input says."""
    signal.alarm(LONGEST_SECONDS)
    # A kill and a cycle need the processor more.
    os.nice(10)
    asked = json.load(sys.stdin)
    answer = check(asked) if "urls" in asked else send(asked)
    # Whatever a library may have printed stands before the last line.
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
