"""The program of a sending process: reads one message from standard input, hands it to Apprise, prints the result.

It runs as a script and imports nothing of ours. It prints only numbers and fixed words: the output of Apprise and its libraries
may contain URLs with their passwords.
"""

import gc
import json
import logging
import os
import re
import signal
import sys
from typing import Any

# The process that started this may be gone, so this limits importing Apprise, and then sending. A channel is held twice as long.
LONGEST_SECONDS = 30
READY = "ready"

STATUS = re.compile(r"error=(\d{3})\b")


class Heard(logging.Handler):
    """Keeps the status code that a target answered with."""

    status: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps only the number."""
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
    answered = f"the target answered {heard.status}" if heard.status else "the target did not accept it"
    return {"sent": sent, "why": None if sent else answered}


def check(asked: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the URLs that Apprise does not understand."""
    apprise = _apprise()
    wrong = [number for number, url in enumerate(asked["urls"]) if apprise.Apprise.instantiate(url) is None]
    return {"wrong": wrong}


def _apprise() -> Any:
    """Imports the library and reports that: on a busy machine the import may take longer than the sending."""
    import apprise

    print("\n" + READY, flush=True)
    signal.alarm(LONGEST_SECONDS)
    return apprise


def main() -> None:
    """Sends or checks, as the input says."""
    signal.alarm(LONGEST_SECONDS)
    # Kills and cycles need the processor more. Nor does one message leave garbage that is worth looking for.
    os.nice(10)
    gc.disable()
    asked = json.load(sys.stdin)
    answer = check(asked) if "urls" in asked else send(asked)
    # On the last line, after anything that a library may have printed.
    print("\n" + json.dumps(answer), flush=True)
    # Taking down Apprise's 800 modules one by one would take a third as long as all before.
    os._exit(0)


if __name__ == "__main__":
    main()
