"""`make audit-deps`: licences, SBOM and known vulnerabilities of what is locked, one sentence for each.

The status says what is wrong: 1 a licence that is not allowed, 2 a known vulnerability, 3 not every package could be asked about,
4 no SBOM. Each part runs whatever became of the others.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.dependencies.licences import ALLOWED, ROOT, installed_closure, refused

LOCKED = ROOT / "requirements.txt"
SBOM = ROOT / "dist/sbom.json"
LICENCE, VULNERABLE, NOT_ASKED, NO_SBOM = 1, 2, 3, 4
# Of which one status tells, where several parts have found something.
WORST_FIRST = (VULNERABLE, LICENCE, NO_SBOM, NOT_ASKED)


class Found(NamedTuple):
    """What one part found."""

    status: int
    told: str


def main() -> int:
    """Runs all parts."""
    parser = argparse.ArgumentParser(prog="make audit-deps", description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="where pip-audit and cyclonedx-py are")
    parser.add_argument("--requirements", type=Path, default=LOCKED, help="another lock file")
    parser.add_argument("--sbom", type=Path, default=SBOM, help="where the SBOM goes")
    asked = parser.parse_args()
    closure = installed_closure()
    found = [
        licences(closure),
        bill_of_materials(asked.tools, asked.requirements, asked.sbom, closure),
        vulnerabilities(asked.tools, asked.requirements),
    ]
    for part in found:
        print(part.told, flush=True)
    statuses = {part.status for part in found}
    return next((status for status in WORST_FIRST if status in statuses), 0)


def licences(closure: dict[str, str]) -> Found:
    """Against the list of those that are allowed."""
    if wrong := refused(closure):
        return Found(LICENCE, f"licences: not allowed (tests/dependencies/licences.py): {'; '.join(wrong)}")
    return Found(0, f"licences: all {len(closure)} packages have allowed ones")


def bill_of_materials(tools: Path, locked: Path, target: Path, closure: dict[str, str]) -> Found:
    """CycloneDX in JSON, from the lock file, with the licences of what is installed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    command = [tools / "cyclonedx-py", "requirements", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible"]
    done = _run([*command, "--of", "JSON", "-o", target, locked])
    if done.returncode or not target.exists():
        return Found(NO_SBOM, f"SBOM: none was made: {_last_line(done.stderr)}")
    bill = json.loads(target.read_text())
    for component in bill["components"]:
        if licence := closure.get(component["name"]):
            component["licenses"] = [_licence(licence)]
    target.write_text(json.dumps(bill, indent=2) + "\n")
    return Found(0, f"SBOM: {len(bill['components'])} packages in {target}")


def _licence(said: str) -> dict[str, Any]:
    if " OR " in said or " AND " in said:
        return {"expression": said}
    # SPDX has no `LGPL` without a version.
    return {"license": {"id": said}} if said in ALLOWED - {"LGPL"} else {"license": {"name": said}}


def vulnerabilities(tools: Path, locked: Path) -> Found:
    """What is known of each locked version. Nothing is installed."""
    command = [tools / "pip-audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", "15"]
    done = _run([*command, "--format", "json", "--requirement", locked])
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return Found(NOT_ASKED, f"vulnerabilities: could not be asked for: {_last_line(done.stderr)}")
    return judge(packages)


def judge(packages: list[dict[str, Any]]) -> Found:
    """Of what pip-audit says. It calls all well where it found no package at all, for want of a network or by a mirror
    without advisories: who was skipped was not audited."""
    known = [f"{each['name']} {each['version']}: {flaw['id']}" for each in packages for flaw in each.get("vulns", [])]
    if known:
        return Found(VULNERABLE, f"vulnerabilities: known are {'; '.join(known)}")
    skipped = [each for each in packages if "vulns" not in each]
    if skipped or not packages:
        why = skipped[0].get("skip_reason", "") if skipped else "it named no package"
        return Found(
            NOT_ASKED, f"vulnerabilities: {len(skipped)} of {len(packages)} packages could not be asked about: {why}"
        )
    return Found(0, f"vulnerabilities: none is known of {len(packages)} packages")


def _run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _last_line(text: str) -> str:
    return next(iter(reversed(text.strip().splitlines())), "it said nothing")


if __name__ == "__main__":
    sys.exit(main())
