"""The mutations still apply: each text that they change stands once in the file, and what results is Python."""

import ast
from collections import Counter

import pytest

from tests.chaos.mutations import MUTATIONS, Mutation, changed


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_applies(mutation: Mutation) -> None:
    for text in changed(mutation).values():
        ast.parse(text)


def test_each_invariant_has_three_mutations_or_more() -> None:
    counts = Counter(mutation.invariant for mutation in MUTATIONS)
    assert counts.keys() == {f"I{n}" for n in range(1, 9)}
    assert min(counts.values()) >= 3
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
