"""Generates docs/http.md, the page of the HTTP API, from the OpenAPI document (`make docs`)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api import guide
from api.app import ROUTERS

Json = Mapping[str, Any]

INTRODUCTION = """\
# HTTP

<!-- Written by `make docs` from api/: change that, not this. -->

{description}
A running API shows the same at `/docs`, with all response fields, and lets you try requests. Programs read `/openapi.json`.

## Errors

These statuses mean the same for every request. Below, each request lists those that it can return, and explains any others.

{errors}"""
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {}",
}


def document() -> Json:
    """The OpenAPI document of an application without parts."""
    app = guide.DocumentedApi(
        title="AIS",
        version="-",
        description=guide.DESCRIPTION,
        openapi_tags=guide.TAGS,
        generate_unique_id_function=guide.operation_id,
    )
    for router in ROUTERS:
        app.include_router(router)
    found = app.openapi()
    inlined: Json = _inlined(found, found)
    return inlined


def _inlined(found: Json, part: Any) -> Any:
    """The document with each reference replaced by its target; none of our models contains itself."""
    if isinstance(part, list):
        return [_inlined(found, it) for it in part]
    if not isinstance(part, dict):
        return part
    if name := part.get("$ref"):
        return _inlined(found, found["components"]["schemas"][name.rpartition("/")[2]])
    return {key: _inlined(found, it) for key, it in part.items() if key != "components"}


def page() -> str:
    """The text of docs/http.md. A test fails if the file differs."""
    found = document()
    errors = _shared_errors(found)
    text = INTRODUCTION.format(
        description=found["info"]["description"], errors=_table(("status", "meaning"), sorted(errors.items()))
    )
    for tag in found["tags"]:
        text += f"\n## {tag['name'].capitalize()}\n\n{tag['description']}\n"
        text += "".join(
            _operation(path, method, operation, errors)
            for path, method, operation in _operations(found)
            if tag["name"] in operation["tags"]
        )
    # Links are relative to /docs in the document, but to the folder of the other pages here.
    return text.replace("](manual/", "](")


def _operations(found: Json) -> Iterator[tuple[str, str, Json]]:
    return (
        (path, method, operation) for path, methods in found["paths"].items() for method, operation in methods.items()
    )


def _shared_errors(found: Json) -> dict[str, str]:
    """Maps a status to its usual meaning."""
    answers = [it for _, _, operation in _operations(found) for it in operation["responses"].items() if it[0] >= "400"]
    said = Counter((status, answer["description"]) for status, answer in answers)
    of_status = Counter(status for status, _ in answers)
    return {status: words for (status, words), count in said.items() if 2 * count > of_status[status]}


def _operation(path: str, method: str, operation: Json, errors: Mapping[str, str]) -> str:
    parameters = [
        (f"`{it['name']}`", it["in"], _kind(it["schema"]), it.get("description", ""))
        for it in operation.get("parameters", ())
    ]
    parts = [
        f"### {method.upper()} {path}",
        f"{operation['summary']}. {operation['description']}",
        _table(("parameter", "in", "value", "meaning"), parameters) if parameters else "",
        _body(operation),
        _answers(operation, errors),
    ]
    return "".join(f"\n{part.rstrip()}\n" for part in parts if part)


def _body(operation: Json) -> str:
    if not (body := operation.get("requestBody")):
        return ""
    content = body["content"]["application/json"]
    (schema,) = _kinds(content["schema"])
    needed = schema.get("required", ())
    rows = [
        (f"`{name}`" + ("" if name in needed else ", optional"), _kind(field), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]
    fields = _table(("field of the body", "value", "meaning"), rows) if rows else ""
    return fields + _example("Example of a body", content)


def _answers(operation: Json, errors: Mapping[str, str]) -> str:
    answers = operation["responses"]
    usual = sorted(status for status in answers if errors.get(status) == answers[status]["description"])
    # "Successful Response" is FastAPI's own text for an answer without a description.
    described = {
        status: str(it["description"]).replace("Successful Response", "Done.") for status, it in answers.items()
    }
    own = [(status, described[status]) for status in sorted(answers.keys() - usual)]
    text = _table(("status", "meaning"), own)
    text += f"\nAlso {', '.join(usual)}, explained [above](#errors).\n" if usual else ""
    best = answers.get("200") or answers["202"]
    content = best.get("content", {}).get("application/json", {})
    return text + _example("Example of a response", content)


def _example(title: str, content: Json) -> str:
    """The first example: the content's own, or the model's."""
    shown = [it["value"] for it in content.get("examples", {}).values()]
    for schema in _kinds(content.get("schema", {})):
        shown += [*schema.get("examples", ()), *([it] for it in schema.get("items", {}).get("examples", ()))]
    return f"\n{title}:\n\n```json\n{json.dumps(shown[0], indent=2, ensure_ascii=False)}\n```\n" if shown else ""


def _kinds(schema: Json) -> list[Json]:
    """The schemas that a value may have, without null."""
    return [it for it in schema.get("anyOf", (schema,)) if it.get("type") != "null"]


def _kind(schema: Json) -> str:
    """The kind of a value in words, such as `string, at most 64 characters`."""
    kinds = _kinds(schema)
    words = [" or ".join(dict.fromkeys(_word(it) for it in kinds))]
    words += [text.format(f"{it[name]:g}") for it in (schema, *kinds) for name, text in _BOUNDS.items() if name in it]
    default = schema.get("default")
    words += [f"default `{json.dumps(default)}`"] if default is not None else []
    return ", ".join(dict.fromkeys(filter(None, words)))


def _word(schema: Json) -> str:
    if values := schema.get("enum"):
        return ", ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_word(schema['items'])}"
    if schema.get("type") == "object":
        return "object"
    return {"date-time": "time"}.get(schema.get("format", ""), str(schema.get("type", "")))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = tuple(head)
    lines = [columns, ("---",) * len(columns), *rows]
    cells = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
