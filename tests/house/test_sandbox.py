"""What runs in the workflow sandbox, and what passes through it."""

import ast
from collections.abc import Iterator

from tests.house.sources import Source, sources

# They run inside the sandbox, which takes their clock and random numbers away.
SANDBOXED = ("workflows/coordinator.py", "workflows/cycle.py", "workflows/run.py", "workflows/outbox.py")
PASSED_THROUGH = ("domain", "activities")


def _outside_the_block(source: Source) -> Iterator[ast.ImportFrom]:
    """Imports of first-party models at the top of the module itself, so not in the `with` block."""
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PASSED_THROUGH:
            yield node


def test_every_model_a_workflow_uses_passes_through_the_sandbox() -> None:
    found = [source for source in sources("workflows") if source.name in SANDBOXED]
    wrong = [source.at(node.lineno) for source in found for node in _outside_the_block(source)]
    assert len(found) == len(SANDBOXED), "a sandboxed module moved: name it here"
    assert not wrong, (
        "Import domain and activities inside `with workflow.unsafe.imports_passed_through():`. A class imported both "
        "ways is two classes, and an activity's result fails isinstance against the workflow's own.\n"
        + "\n".join(wrong)
    )


def test_no_sandboxed_module_is_passed_through() -> None:
    names = {name.removesuffix(".py").replace("/", ".") for name in SANDBOXED}
    blocks = [
        source.at(node.lineno)
        for source in sources("workflows")
        for with_ in ast.walk(source.tree)
        if isinstance(with_, ast.With)
        for node in with_.body
        if isinstance(node, ast.ImportFrom) and node.module in names
    ]
    assert not blocks, "Passing these through would take the sandbox's guard off them:\n" + "\n".join(blocks)
