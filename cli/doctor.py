"""Carries out `ais doctor`: checks everything that a desk needs, one by one, and says what to do about each fault.

A check that cannot be made is never reported as passed.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from cli.examine import configured, database, machine, temporal
from cli.examine.findings import Examination, Finding, Verdict
from domain.values import printable

__all__ = ["Finding", "Verdict", "as_json", "passed", "run", "text_of"]

# In the order in which each may use what the ones before it found.
CHECKS = (
    temporal.temporal, temporal.attributes, temporal.coordinator, temporal.worker, temporal.queue, temporal.terms,
    temporal.warnings,
    database.database, database.schema, database.role, database.writing, database.audit, database.clock,
    machine.api, machine.disks,
)  # fmt: skip


async def examine() -> AsyncGenerator[Finding]:
    """Yields each finding as soon as it is known."""
    seen = Examination()
    for finding in [*configured.settings_of(seen), configured.mode(seen), *await configured.audit_key(seen)]:
        yield finding
    for check in CHECKS:
        yield await check(seen)


async def run(show: Callable[[Finding], None]) -> list[Finding]:
    """Makes all checks; `show` gets each finding as soon as it is known."""
    found = []
    # Closed at once if nobody reads any more (`| head`): otherwise the end of the process complains of what is left of it.
    async with aclosing(examine()) as findings:
        async for finding in findings:
            show(finding)
            found.append(finding)
    return found


def text_of(finding: Finding) -> str:
    """A finding as text: what was found, and below it what to do."""
    line = f"{finding.verdict.value.upper():<5} {finding.check:<28} {printable(finding.found)}"
    return f"{line}\n{'':<5} do: {printable(finding.do)}" if finding.do else line


def as_json(findings: list[Finding]) -> str:
    """All findings as JSON; `ok` says whether none failed."""
    checks = [finding._asdict() for finding in findings]
    return json.dumps({"ok": passed(findings), "checks": checks}, indent=2)


def passed(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.verdict is not Verdict.FAIL for finding in findings)
