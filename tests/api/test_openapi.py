"""The OpenAPI document, and an application that keeps to it."""

import asyncio
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.world import AUTHORIZED, World

COMMANDS = ["pause", "resume", "kill-switch", "cancel-all", "deleverage", "limits"]


@pytest.fixture
def document(world: World) -> Any:
    return world.app.openapi()


def test_every_answer_and_error_has_an_example(document: Any) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, found in operation["responses"].items():
                for content_type, media in found.get("content", {}).items():
                    if content_type == "application/json":
                        assert has_example(document, media), (path, status)


def has_example(document: Any, media: Any) -> bool:
    schema = media["schema"]
    schema = schema.get("items", schema)
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    model = document["components"]["schemas"].get(name, {})
    return "example" in media or "examples" in model


@pytest.mark.parametrize("path", COMMANDS)
def test_commands_name_their_answers_and_errors(document: Any, path: str) -> None:
    responses = document["paths"][f"/control/{path}"]["post"]["responses"]
    assert {"200", "202", "401", "422", "500", "503"} <= set(responses)
    assert "X-Command-Id" in responses["200"]["headers"]
    assert "Location" in responses["202"]["headers"]


def test_protected_paths_name_the_bearer_scheme_and_public_ones_do_not(document: Any) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) is path.startswith(("/control", "/reports", "/proposals")), path


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_documentation_loads_nothing_from_elsewhere(world: World, page: str) -> None:
    response = await world.stranger.get(page)
    sources = re.findall(r'(?:src|href|spec-url)="([^"]+)"', response.text)
    assert sources
    for source in sources:
        assert not source.startswith(("http:", "https:", "//"))
        assert (await world.stranger.get(f"/{source}")).status_code == 200
    assert "'unsafe-inline'" not in response.headers["Content-Security-Policy"].split("style-src")[0]


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_the_application_keeps_to_its_document() -> None:
    made = World()
    # The fakes belong to no loop; schemathesis brings its own for each call.
    lifespan = made.app.router.lifespan_context(made.app)
    asyncio.run(lifespan.__aenter__())
    schema = schemathesis.openapi.from_asgi("/openapi.json", made.app)
    for result in schema.get_all_operations():
        keeps_to_it(result.ok())  # type: ignore[union-attr]


def keeps_to_it(operation: Any) -> None:
    @settings(max_examples=7, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(headers=AUTHORIZED, checks=CHECKS)

    check()
