"""The domain takes time, randomness and data as arguments.

It is passed through the workflow sandbox, which takes the sandbox's guard away from it. Measured: a model there with
`default_factory=datetime.now` ran in a workflow without complaint, and replay passed, since the value reached no
command.
"""

import ast

from tests.house.sources import sources

FORBIDDEN_MODULES = {
    "asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil", "socket",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid", "http",
}  # fmt: skip
FORBIDDEN_CALLS = {"open", "input", "print", "eval", "exec", "__import__", "id", "hash"}
CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}
CLOCK_OWNERS = {"datetime", "date", "time", "dt"}


def test_it_imports_no_clock_no_chance_and_no_file() -> None:
    wrong = [
        source.at(line) + f" {module}"
        for source in sources("domain")
        for module, line in source.imports()
        if module.split(".")[0] in FORBIDDEN_MODULES
    ]

    assert not wrong, f"Take it as an argument; workflow.now() and workflow.uuid4() are the caller's: {wrong}"


def test_it_calls_nothing_whose_answer_differs_from_run_to_run() -> None:
    wrong = [
        f"{source.at(node.lineno)} {ast.unparse(node.func)}()"
        for source in sources("domain")
        for node in source.nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
    ]

    assert not wrong, f"A replay has to come to the same answer in another process: {wrong}"


def test_it_never_asks_what_time_it_is() -> None:
    """As a call and as a `default_factory` alike."""
    wrong = [
        f"{source.at(node.lineno)} {ast.unparse(node)}"
        for source in sources("domain")
        for node in source.nodes
        if isinstance(node, ast.Attribute)
        and node.attr in CLOCKS
        and ast.unparse(node.value).split(".")[-1] in CLOCK_OWNERS
    ]

    assert not wrong, f"Time is an argument: {wrong}"


def test_no_set_decides_an_order_of_things() -> None:
    """Sets of strings iterate in another order in every process."""
    wrong = [
        source.at(node.iter.lineno)
        for source in sources("domain", "workflows")
        for node in source.nodes
        if isinstance(node, ast.For | ast.comprehension) and _is_a_set(node.iter)
    ]

    assert not wrong, f"Sort it, or carry a list or a dict: {wrong}"


def _is_a_set(node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    return called or isinstance(node, ast.Set | ast.SetComp)
