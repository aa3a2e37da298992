"""The introduction of the OpenAPI document: what the API is for, and its groups of endpoints in the order of use."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.openapi import bodies, links, status_example

DESCRIPTION = f"""\
Control plane of an automated trading desk. A *desk* is one account at a venue; its *coordinator* decides each cycle whether
to trade, and obeys the commands below.

**Key.** Everything under `/control`, `/reports` and `/proposals` needs `Authorization: Bearer <key>`: `AIS_API_KEY`, or a key of
`ais keys create` whose role allows it. The rest is public, and answers `HEAD` as it answers `GET`.

**Commands.** 200 means that the coordinator confirmed the command. 202 means that it is recorded and will take effect; `Location`
is the URL of its outcome. 409 means that the state does not allow it, and 503 that something cannot be reached. Any answer other
than 200 or 202 changed nothing, unless `detail` says that this is not known. An `Idempotency-Key` makes a command safe to repeat.

**Errors** are JSON with `detail`: a sentence that says what is wrong and what to do, or for 422 a list of what is wrong where.

{links("runbook", "architecture", "risk", "operations", "keys")}
"""
TAGS: list[dict[str, Any]] = [
    {
        "name": "control",
        "description": f"Commands: stop the desk, let it go on, and reduce risk. {links('runbook', 'risk')}",
    },
    {"name": "status", "description": "What the desk is doing, and what became of a command. Changes nothing."},
    {"name": "health", "description": f"Whether the parts of AIS reach one another. Public. {links('operations')}"},
    {"name": "proposals", "description": f"Ideas of trading agents outside of AIS. {links('agents')}"},
    {"name": "reports", "description": "The past, from the database: decisions, orders, executions, the account."},
    {"name": "metrics", "description": f"Numbers for Prometheus. Public. {links('metrics')}"},
]


def operation_id(route: APIRoute) -> str:
    """The name of the endpoint's function, without the prefix that only avoids a clash with a module's name."""
    return route.name.removeprefix("read_")


class DocumentedApi(FastAPI):
    """Adds the example of the status afterwards: FastAPI drops every null in examples, even required ones."""

    def openapi(self) -> dict[str, Any]:
        """The document."""
        document = super().openapi()
        found = document["paths"]["/control/coordinator"]["get"]["responses"]["200"]
        found["content"]["application/json"]["examples"] = bodies(just_killed=status_example())
        return document
