"""The documents keep up with the code."""

import re

import pytest
from fastapi.routing import APIRoute

from api.app import ROUTERS
from api.auth import GuardedRoute, is_protected
from settings import catalogue
from storage.tables import metadata
from tests.house.generated import PAGES
from tests.house.sources import ROOT, sources

METRICS = (ROOT / "docs/metrics.md").read_text()
README = ROOT / "README.md"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_the_code_writes_is_what_it_would_write_now(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), f"Run `make docs` and commit docs/{page}."


def test_every_setting_says_what_it_is_and_what_is_allowed() -> None:
    silent = [setting.variable for setting in catalogue() if not (setting.description and setting.allowed)]

    assert not silent, f"Fill in description and allowed in settings.py: {silent}"


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"`(ais_\w+)`", METRICS))
    made = {
        (name, source.name)
        for source in sources("activities", "api", "workflows")
        for name in re.findall(r'"(ais_[a-z_]+)"', source.path.read_text())
    }

    # prometheus_client adds _total to a counter by itself.
    missing = [f"{name} ({file})" for name, file in sorted(made) if not {name, f"{name}_total"} & documented]
    assert not missing, f"Add a row to docs/metrics.md for: {missing}"


def _endpoints() -> list[str]:
    """`POST /control/pause`, from the decorators, without building the application."""
    found = []
    for source in sources("api"):
        text = source.path.read_text()
        prefixes = re.findall(r'(\w+) = APIRouter\([^)]*?prefix="([^"]*)"', text, re.DOTALL)
        prefix = dict(prefixes)
        for router, method, path in re.findall(r'@(\w+)\.(get|post)\(\s*"([^"]*)"', text):
            found.append(f"{method.upper()} {prefix.get(router, '')}{path}")
    return sorted(found)


def test_the_endpoints_are_found() -> None:
    """So that the next test cannot pass by seeing none."""
    assert "POST /control/kill-switch" in _endpoints()
    assert "GET /reports/decisions" in _endpoints()


@pytest.mark.skipif(not README.exists(), reason="there is no README.md yet")
def test_every_endpoint_is_in_the_readme() -> None:
    text = README.read_text()
    path_of = {
        endpoint: re.sub(r"\{command_id\}", "{id}", endpoint.split()[1].replace(":path}", "}"))
        for endpoint in _endpoints()
    }
    missing = [endpoint for endpoint, path in path_of.items() if path not in text]

    assert not missing, f"Add these to the table of endpoints in README.md: {missing}"


def _roles_on_the_page() -> dict[str, str]:
    """`POST /control/pause` -> operator, of the table in docs/keys.md."""
    return dict(
        re.findall(r"^\| `((?:GET|POST) [^`]+)` \| (\w+) \|$", (ROOT / "docs/keys.md").read_text(), re.MULTILINE)
    )


def test_every_endpoint_under_a_protected_path_has_a_role_and_the_page_of_keys_says_which() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    guarded = [route for route in routes if isinstance(route, GuardedRoute)]
    open_to_all = [route.path for route in routes if is_protected({"path": route.path}) and route not in guarded]
    found = {
        f"{method} {re.sub(r'{command_id(:path)?}', '{id}', route.path)}": route.role.value
        for route in guarded
        for method in route.methods or ()
    }

    assert not open_to_all, (
        f"Give their router route_class=GuardedRoute, and each endpoint @needs(Role.…): {open_to_all}"
    )
    assert all(is_protected({"path": route.path}) for route in guarded), (
        "Authentication looks at api.auth.PROTECTED alone."
    )
    assert found == _roles_on_the_page(), "Correct the table of endpoints in docs/keys.md."


def test_the_architecture_says_of_every_table_who_writes_it() -> None:
    section = (
        (ROOT / "docs/architecture.md").read_text().partition("## Who writes which table")[2].partition("\n## ")[0]
    )
    named = {
        name
        for row in section.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([\w.]+)`", row.split("|")[1])
    }

    assert named == set(metadata.tables), f"Correct these rows: {sorted(named ^ set(metadata.tables))}"


@pytest.mark.parametrize(
    "folder",
    [
        "activities",
        "activities/agents",
        "activities/market",
        "activities/venues",
        "activities/venues/aster",
        "api",
        "cli",
        "domain/desk",
        "domain/trading",
        "notify",
        "storage",
    ],
)
def test_the_map_of_a_package_names_all_of_its_files(folder: str) -> None:
    package = ROOT / folder
    rows = [row.split("|")[1] for row in (package / "__init__.py").read_text().splitlines() if row.startswith("| `")]
    named = {name.removesuffix("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    there = {path.name for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    wrong = sorted(named ^ (there - {"__init__.py", "__main__.py"}))
    assert not wrong, f"Correct the table in {folder}/__init__.py: {wrong}"
