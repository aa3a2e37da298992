"""The documents keep up with the code."""

import re

import pytest

from deploy.settings_page import page
from settings import catalogue
from tests.house.sources import ROOT, sources

METRICS = (ROOT / "docs/metrics.md").read_text()
README = ROOT / "README.md"


def test_the_page_of_settings_is_the_one_that_the_code_writes() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page(), "Run `make docs` and commit docs/settings.md."


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
@pytest.mark.parametrize("endpoint", _endpoints())
def test_every_endpoint_is_in_the_readme(endpoint: str) -> None:
    path = re.sub(r"\{command_id(:path)?\}", "{id}", endpoint.split()[1])

    assert path in README.read_text(), f"Add {endpoint} to the table of endpoints in README.md."
