"""What can go wrong between the adapter and the exchange. Every switch can be set while the server runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SECRET = "fake-api-secret-that-must-never-show"
SIGNATURE = "signature=5f9f4ab1c0de"


@dataclass
class Faults:
    """Switches; a tool's name or `*` stands for whom they concern."""

    # tool -> HTTP status of the exchange's error; 0 stands for one without a status, a refused connection.
    errors: dict[str, int] = field(default_factory=dict)
    # Only calls about these symbols fail; none stands for all.
    symbols: list[str] = field(default_factory=list)
    # So many errors, then none; None stands for all.
    errors_left: int | None = None
    # Whether what failed was carried out all the same.
    executes: bool = False
    # tool -> seconds before the server begins, and between what it did and its answer.
    slow: dict[str, float] = field(default_factory=dict)
    # Tools whose calls wait until the test lets them go: no race between two time limits on a busy machine.
    held: set[str] = field(default_factory=set)
    late: dict[str, float] = field(default_factory=dict)
    # tool -> how many calls have to be under way at once before any of them goes on.
    gathers: dict[str, int] = field(default_factory=dict)
    # Tools that never answer.
    hangs: list[str] = field(default_factory=list)
    # One call at a time, as fastmcp 2.x.
    serial: bool = False
    ping_fails: bool = False
    # Answers as text alone, as older servers.
    text_only: bool = False
    # tool -> an answer in place of the true one.
    answers: dict[str, Any] = field(default_factory=dict)
    # Only so many calls of a tool get it, then the true one; and only those that ask for everything, or name a symbol.
    answers_left: dict[str, int] = field(default_factory=dict)
    of_all: bool = False

    def of(self, what: dict[str, Any], tool: str) -> Any:
        return what.get(tool, what.get("*"))

    def error(self, tool: str, symbol: str | None = None) -> int | None:
        """The status of the error that this call ends with, if it does."""
        status = self.of(self.errors, tool)
        if status is None or self.errors_left == 0 or (self.symbols and symbol not in self.symbols):
            return None
        if self.errors_left is not None:
            self.errors_left -= 1
        return int(status)

    def answer(self, tool: str, arguments: Mapping[str, Any], true: Any) -> Any:
        """What the tool answers."""
        if tool not in self.answers or self.answers_left.get(tool) == 0 or (self.of_all and "symbol" in arguments):
            return true
        if tool in self.answers_left:
            self.answers_left[tool] -= 1
        return self.answers[tool]

    def change(self, **changes: Any) -> None:
        for name, value in changes.items():
            if name not in {each.name for each in fields(self)}:
                raise KeyError(name)
            setattr(self, name, value)


def error_text(tool: str, status: int) -> str:
    """What the official server's texts look like: the signed URL, and whatever else was in it."""
    url = f"/fapi/v1/{tool}?symbol=BTCUSDT&timestamp=1795576947276&{SIGNATURE}&api_secret={SECRET}"
    if not status:
        return f"Error calling tool '{tool}': HTTPSConnectionPool(host='fapi', port=443): Max retries exceeded: {url}"
    kind = "Server" if status >= 500 else "Client"
    return f"Error calling tool '{tool}': {status} {kind} Error: Bad for url: https://fapi.asterdex.invalid{url}"
