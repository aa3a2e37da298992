"""The licences of everything that AIS imports when it runs, its extras too, against a list of those that are allowed.

What a package says of itself counts: its SPDX expression, or else its licence's name, or else its classifiers. No network.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Extras of `pyproject.toml` that somebody runs AIS with.
EXTRAS = ("parquet", "traces")
# Whatever is done with the code, it asks for no more than that its notice stays.
PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "PSF-2.0", "Zlib",
}  # fmt: skip
# For libraries that are installed beside AIS as they came, and can be replaced there: psycopg, pebble, certifi.
UNCHANGED = {"LGPL", "LGPL-3.0-only", "MPL-2.0"}
ALLOWED = PERMISSIVE | UNCHANGED
# How packages without an SPDX expression call them.
ALSO_CALLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
NOT_SAID = "it does not say which"


def installed_closure() -> dict[str, str]:
    """Each installed package that AIS needs to run, by name, with its licence."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    extras: dict[str, set[str]] = {}
    for requirement in map(Requirement, asked):
        _follow(requirement, extras)
    return {name: licence_of(metadata.metadata(name)) for name in sorted(extras)}


def _follow(requirement: Requirement, extras: dict[str, set[str]]) -> None:
    """Notes what this asks for, and what that asks for, in the environment that this runs in."""
    name = canonicalize_name(requirement.name)
    if name in extras and requirement.extras <= extras[name]:
        return
    wanted = extras.setdefault(name, set())
    wanted |= requirement.extras
    for inner in _needs(name, wanted):
        _follow(inner, extras)


def _needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, metadata.requires(name) or []):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def licence_of(said: Any) -> str:
    """What this metadata says, as an SPDX expression as far as that can be told."""
    if expression := said.get("License-Expression"):
        return str(expression)
    named = (said.get("License") or "").strip()
    if _spdx(named) in ALLOWED:
        return _spdx(named)
    classifiers = [text for text in said.get_all("Classifier") or [] if text.startswith("License ::")]
    told = sorted({_spdx(text.rpartition(" :: ")[2]) for text in classifiers})
    # Of a text that is no name, its first line is enough to look further.
    return " AND ".join(told) or named.partition("\n")[0][:100] or NOT_SAID


def _spdx(name: str) -> str:
    return ALSO_CALLED.get(name, name)


def is_allowed(expression: str) -> bool:
    """Whether one of its alternatives is allowed whole; where it has brackets, every licence that it names."""
    if "(" in expression:
        words = re.findall(r"[\w.+-]+", expression)
        return set(words) - {"AND", "OR"} <= ALLOWED
    return any(set(every.split(" AND ")) <= ALLOWED for every in expression.split(" OR "))


def refused(found: Mapping[str, str]) -> list[str]:
    """`name: licence` of each that is not allowed."""
    return [f"{name}: {licence}" for name, licence in found.items() if not is_allowed(licence)]
