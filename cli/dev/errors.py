"""What can go wrong in `ais dev`. Each text is the one line that a person sees.

StackError
├── AlreadyRunning   a second instance on the same data folder
├── NoFolder         the data folder cannot be made or written
├── PortTaken        a port is in use
├── NotInstalled     a program of the development requirements is missing
└── PartFailed       a part did not come up
"""

from pathlib import Path


class StackError(Exception):
    """An expected failure: `ais dev` prints its text without a traceback and exits with 1."""


class AlreadyRunning(StackError):
    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"An `ais dev` (pid {pid or 'unknown'}) already runs on {folder}: stop it, or use --data-dir.")


class NoFolder(StackError):
    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(f"The data folder {folder} cannot be used ({error.strerror}): choose another with --data-dir.")


class PortTaken(StackError):
    def __init__(self, port: int, what: str, flag: str) -> None:
        super().__init__(f"Port {port} for {what} is taken: choose another with {flag}.")


class NotInstalled(StackError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not installed: run `make install` (it is in requirements-dev.txt).")


class PartFailed(StackError):
    def __init__(self, name: str, why: str, log: str = "") -> None:
        super().__init__(f"{name} did not come up: {why}" + (f"\n{log}" if log else ""))
