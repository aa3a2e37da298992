"""The OpenAPI document. That the application keeps to it is in `test_fuzzing.py`."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from tests.api.world import World

COMMANDS = ["pause", "resume", "kill-switch", "cancel-all", "deleverage", "limits"]


@pytest.fixture
def document(world: World) -> Any:
    return world.app.openapi()


@pytest.fixture
def operations(document: Any) -> dict[str, Any]:
    """`POST /control/pause` -> its operation."""
    paths = document["paths"].items()
    return {f"{method.upper()} {path}": found for path, methods in paths for method, found in methods.items()}


def test_every_operation_has_a_short_name_of_its_own(operations: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations.values()]
    assert {"kill_switch", "pause", "resume", "cancel_all", "deleverage", "status", "health", "metrics"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)?", name) for name in names), names


def test_every_operation_says_what_it_is_for(operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        assert re.fullmatch(r"[A-Z][a-z]+( [a-z]+)+", operation["summary"]), name
        assert len(operation["description"]) > 100, name
    summaries = [operation["summary"] for operation in operations.values()]
    assert len(set(summaries)) == len(summaries)


def test_groups_stand_in_the_order_of_use(document: Any, operations: dict[str, Any]) -> None:
    groups = [tag["name"] for tag in document["tags"]]
    assert groups == ["control", "status", "health", "proposals", "reports", "metrics"]
    assert list(dict.fromkeys(operation["tags"][0] for operation in operations.values())) == groups
    assert next(iter(operations)) == "POST /control/kill-switch"


def test_every_request_has_an_example(operations: dict[str, Any]) -> None:
    bodies = {name: operation["requestBody"] for name, operation in operations.items() if name.startswith("POST")}
    assert len(bodies) == len(COMMANDS) + 1
    for name, body in bodies.items():
        assert body["content"]["application/json"]["examples"], name


def test_every_answer_and_error_has_an_example(document: Any, operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        for status, found in operation["responses"].items():
            (media,) = found["content"].values()
            assert has_example(document, media), (name, status)


def has_example(document: Any, media: Any) -> bool:
    if {"example", "examples"} & media.keys():
        return True
    schema = media["schema"]
    schema = schema.get("items", schema)
    name = schema["$ref"].rsplit("/", 1)[-1]
    return "examples" in document["components"]["schemas"][name]


def test_every_example_keeps_to_its_schema(document: Any, operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media in (media for part in parts for media in part.get("content", {}).values()):
            for example in media.get("examples", {}).values():
                assert flaws(document, media["schema"], example["value"]) == [], name
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", []):
            assert flaws(document, schema, example) == [], name


def flaws(document: Any, schema: Any, value: Any) -> list[str]:
    validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    return [error.message for error in validator.iter_errors(value)]


@pytest.mark.parametrize("path", ["pause", "resume", "cancel-all", "kill-switch"])
async def test_a_body_that_may_be_left_out_is_no_choice_of_two(world: World, document: Any, path: str) -> None:
    """Clients of openapi-python-client fail on `null` or an object when the body is left out. Both are taken, though."""
    body = document["paths"][f"/control/{path}"]["post"]["requestBody"]
    assert not body.get("required")
    assert "anyOf" not in body["content"]["application/json"]["schema"]
    for content in (None, b"null", b"{}"):
        assert (await world.client.post(f"/control/{path}", content=content)).status_code == 200


async def test_descriptions_link_to_pages_of_the_manual(world: World, document: Any) -> None:
    links = re.findall(r"\]\((manual/[^)]+)\)", json.dumps(document))
    assert {"manual/runbook.md", "manual/risk.md"} <= set(links)
    for link in set(links):
        response = await world.stranger.get(f"/{link}")
        assert response.status_code == 200, link
        assert response.headers["content-type"].startswith("text/plain")
        assert response.text.startswith("# ")


@pytest.mark.parametrize("name", ["nothing.md", "..%2FREADME.md", "%2Fetc%2Fpasswd"])
async def test_the_manual_has_its_own_pages_alone(world: World, name: str) -> None:
    response = await world.stranger.get(f"/manual/{name}")
    assert response.status_code == 404
    assert set(response.json()) == {"detail"}


@pytest.mark.parametrize("path", COMMANDS)
def test_commands_name_their_answers_and_errors(document: Any, path: str) -> None:
    responses = document["paths"][f"/control/{path}"]["post"]["responses"]
    assert {"200", "202", "401", "422", "500", "503"} <= set(responses)
    assert ("409" in responses) is (path != "kill-switch")
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
