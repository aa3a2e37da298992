"""How the Aster MCP server is reached."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AsterAccess:
    """`account_id` is empty if only the public tools are used."""

    address: str
    account_id: str
    timeout_seconds: float
    interval: str
    books_seconds: float
    leaves_this_machine: bool
