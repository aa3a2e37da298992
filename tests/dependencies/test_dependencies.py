"""What is locked: licences that are allowed, and an audit that calls nothing well that it did not look at."""

import json
import re
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tests.dependencies import __main__ as audit
from tests.dependencies import licences
from tests.dependencies.licences import installed_closure, is_allowed, licence_of, refused


def test_all_that_ais_needs_to_run_has_a_licence_that_is_allowed() -> None:
    found = installed_closure()

    assert not refused(found), (
        "Look for another package, or add its licence to those allowed in tests/dependencies/licences.py, with a reason."
    )
    locked = re.findall(r"^([a-z0-9-]+)==[^;]*$", (licences.ROOT / "requirements.txt").read_text(), re.MULTILINE)
    # Without a marker it is installed everywhere.
    assert set(locked) <= set(found), "The licences of these were not looked at."


def said(**fields: str | list[str]) -> Message:
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


MIT = "License :: OSI Approved :: MIT License"
GPL = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        (said(License_Expression="MIT OR GPL-3.0-only", License="GPL"), "MIT OR GPL-3.0-only"),
        (said(License="MIT License"), "MIT"),
        (said(License="Copyright (c) 2020\n\nPermission is", Classifier=[MIT]), "MIT"),
        (said(Classifier=[MIT, GPL]), "GNU General Public License v3 (GPLv3) AND MIT"),
        (said(Classifier=["Topic :: Internet"]), licences.NOT_SAID),
        (said(License="UNKNOWN"), "UNKNOWN"),
    ],
)
def test_a_licence_is_what_the_package_says(metadata: Any, licence: str) -> None:
    assert licence_of(metadata) == licence


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later OR MIT", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT AND GPL-2.0-only OR ISC", True),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", True),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        (licences.NOT_SAID, False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_where_one_alternative_is(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


WELL = {"name": "idna", "version": "3", "vulns": []}
BAD = {"name": "idna", "version": "3", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "idna", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([WELL], 0, "none is known of 1 packages"),
        ([WELL, SKIPPED], audit.NOT_ASKED, "1 of 2 packages could not be asked about: Dependency not found"),
        ([], audit.NOT_ASKED, "it named no package"),
        ([BAD, SKIPPED], audit.VULNERABLE, "idna 3: PYSEC-1"),
    ],
)
def test_a_package_that_was_skipped_is_not_called_well(packages: list[Any], status: int, told: str) -> None:
    found = audit.judge(packages)

    assert found.status == status
    assert told in found.told


class Tools:
    """Stand-ins for the two tools, and what `make audit-deps` says with them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.sbom = folder, folder / "dist/sbom.json"
        self._capsys = capsys
        arguments = ["audit", "--tools", str(folder), "--sbom", str(self.sbom)]
        monkeypatch.setattr(sys, "argv", arguments)

    def put(self, name: str, script: str) -> None:
        file = self.folder / name
        file.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
        file.chmod(0o755)

    def run(self) -> tuple[int, str]:
        return audit.main(), self._capsys.readouterr().out


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tools:
    made = Tools(tmp_path, monkeypatch, capsys)
    bill = {"components": [{"name": "idna", "version": "3"}, {"name": "pebble", "version": "5"}, {"name": "structlog"}]}
    made.put("cyclonedx-py", f"open(sys.argv[sys.argv.index('-o') + 1], 'w').write({json.dumps(json.dumps(bill))})")
    made.put("pip-audit", f"print({json.dumps(json.dumps({'dependencies': [WELL]}))})")
    return made


def test_all_well_is_zero_and_the_sbom_has_the_licences(tools: Tools) -> None:
    status, told = tools.run()

    assert status == 0, told
    assert [line.split(":")[0] for line in told.splitlines()] == ["licences", "SBOM", "vulnerabilities"]
    components = json.loads(tools.sbom.read_text())["components"]
    assert [each["licenses"] for each in components] == [
        [{"license": {"id": "BSD-3-Clause"}}],
        [{"license": {"name": "LGPL"}}],
        [{"expression": "MIT OR Apache-2.0"}],
    ]


def test_without_a_network_the_rest_is_done_and_the_status_is_one_of_its_own(tools: Tools) -> None:
    tools.put("pip-audit", "sys.exit('Could not connect to the vulnerability feed')")
    status, told = tools.run()

    assert status == audit.NOT_ASKED
    assert "vulnerabilities: could not be asked for: Could not connect" in told
    assert tools.sbom.exists()


def test_a_tool_that_is_not_there_is_reported_and_hides_nothing_else(tools: Tools) -> None:
    (tools.folder / "cyclonedx-py").unlink()
    tools.put("pip-audit", f"print({json.dumps(json.dumps({'dependencies': [BAD]}))}); sys.exit(1)")
    status, told = tools.run()

    assert status == audit.VULNERABLE
    assert "SBOM: none was made" in told
