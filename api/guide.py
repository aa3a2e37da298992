"""The introduction of the OpenAPI document: what the API is for, and its groups of endpoints in the order of use."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.openapi import bodies, links, status_example

DESCRIPTION = f"""\
Control plane of an automated trading desk. A *desk* is one account at a venue; its *coordinator* decides each cycle whether
to trade, and obeys the commands below.

**Key.** Everything under `/control`, `/reports` and `/proposals` needs `Authorization: Bearer <key>`: `AIS_API_KEY`, or a key of
`ais keys create` whose role allows it. The rest is public, and each `GET` there also answers `HEAD`.

**Commands.** 200 means that the coordinator confirmed the command. 202 means that it is recorded and will take effect; `Location`
is the URL of its outcome. 409 means that the state does not allow it, and 503 that something cannot be reached. After any status
but 200 and 202 nothing has changed, unless `detail` says that this is not known. An `Idempotency-Key` makes a command safe to
repeat.

**Errors** are JSON with `detail`: a sentence that says what is wrong and what to do; for 422, a list with the place and reason
of each error.

{links("runbook", "architecture", "risk", "operations", "keys")}
"""
TAGS: list[dict[str, Any]] = [
    {
        "name": "control",
        "description": f"Commands: stop the desk, resume it, and reduce its risk. {links('runbook', 'risk')}",
    },
    {"name": "status", "description": "What the desk is doing, and the outcome of each command. Read-only."},
    {"name": "health", "description": f"Whether the parts of AIS can reach each other. Public. {links('operations')}"},
    {"name": "proposals", "description": f"Proposals from trading agents that run outside AIS. {links('agents')}"},
    {
        "name": "reports",
        "description": "The desk's history, from the database: decisions, orders, executions, the account.",
    },
    {"name": "metrics", "description": f"Metrics for Prometheus. Public. {links('metrics')}"},
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
