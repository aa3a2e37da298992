"""Words: one for one thing, and facts are never read out of a sentence."""

import ast
import re
from collections import defaultdict

from activities import calls
from activities.venues.port import VenueNotSent
from tests.house.sources import ROOT, sources

# Attributes that hold a sentence for people.
SENTENCES = {"summary", "detail", "reason", "warning", "last_error", "observation_error"}
READS = {"startswith", "endswith", "split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"}
GLOSSARY_ROW = re.compile(r"^\| [a-z ]+ \| `(\w+)` \|", re.MULTILINE)


def classes() -> dict[str, list[str]]:
    """Name -> where it is defined."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sources():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(source.at(node.lineno))
    return found


def test_no_two_classes_share_a_name() -> None:
    twice = {name: places for name, places in classes().items() if len(places) > 1}

    assert not twice, f"One word for one thing: rename all but one of {twice}"


def test_the_glossary_names_classes_that_exist() -> None:
    named = GLOSSARY_ROW.findall((ROOT / "docs/architecture.md").read_text())

    assert len(named) >= 30, "the table of words in docs/architecture.md is not found"
    assert set(named) <= classes().keys(), f"Not there any more: {set(named) - classes().keys()}"


def test_no_sentence_is_read_back() -> None:
    wrong = [
        source.at(node.lineno)
        for source in sources()
        for node in source.nodes
        if isinstance(node, ast.Attribute) and node.attr in READS and _is_a_sentence(node.value)
    ]

    assert not wrong, f"A sentence is for people. Give what you need a field: {wrong}"


def _is_a_sentence(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in SENTENCES


def test_an_error_that_temporal_names_by_its_class_keeps_its_name() -> None:
    assert VenueNotSent.__name__ == calls.VENUE_NOT_SENT
