"""What `ais dev` says on the terminal."""

import os
import shlex
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cli.dev.temporal import temporal_program
from domain.values import printable_lines


class Console:
    """Prints lines for a person. If the reader goes away (`ais dev | head`), the stack must still be able to stop."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        try:
            # The end of a log may hold anything.
            print(printable_lines(text), flush=True)
        except OSError:
            sys.stdout = open(os.devnull, "w")

    def progress(self, name: str, text: str) -> None:
        self.say(f"  [{time.monotonic() - self._began:5.1f} s] {name:<12} {text}")


def overview(running: dict[str, Any], key_told: str, key_shell: str, key_in_link: str | None = None) -> str:
    """URLs, the key, and lines to copy. `key_in_link` is a key that `ais dev` made: a person's own is not printed."""
    api = running["api_url"]
    curl = f'curl -sS -H "Authorization: Bearer {key_shell}"'
    temporal = f"{shlex.quote(temporal_program())} workflow"
    to = f"--address {running['temporal_address']} -w coordinator-{running['desk']}"
    fragment = f"#key={key_in_link}" if key_in_link else ""
    return f"""
  Console      {api}/console/{fragment}
  API          {api}
  API docs     {api}/docs
  Temporal UI  {running["ui_url"]}
  API key      {key_told}

  status   {curl} {api}/control/status
  pause    {curl} -X POST {api}/control/pause
  kill     {curl} -X POST {api}/control/kill-switch

  The same when the API is down:
  status   {temporal} query {to} --type status
  pause    {temporal} signal {to} --name pause
  kill     {temporal} signal {to} --name kill
"""


def by_hand(part: str, data_dir: Path) -> str:
    """The command that runs a part which `--without` left out."""
    folder = shlex.quote(str(data_dir))
    if part == "api":
        return f"by hand: {ais_program()} api --data-dir {folder}"
    worker = find_spec("worker")
    return f"by hand: AIS_DATA_DIR={folder} {shlex.quote(sys.executable)} {worker.origin if worker else 'worker.py'}"


def refused(why: str, data_dir: Path) -> str:
    """Says why the coordinator was not started, and shows the person how to bring the desk back."""
    restart = f'{ais_program()} restart --data-dir {shlex.quote(str(data_dir))} --reason "…"'
    return f"  The coordinator was not started: {why}\n  To bring the desk back: {restart}\n"


def ais_program() -> str:
    return shlex.quote(str(Path(sys.executable).parent / "ais"))
