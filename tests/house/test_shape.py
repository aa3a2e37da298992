"""How the code is cut."""

import ast

from tests.house.sources import ROOT, sources

MOST_LINES = 60
NAMES_WITHOUT_MEANING = {"utils", "common", "core", "services", "helpers", "misc"}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{source.at(function.lineno)} {function.name}: {_lines(function)} lines"
        for source in sources()
        for function in source.functions()
        if _lines(function) > MOST_LINES
    ]

    assert not long, f"Give its steps names and move them out: {long}"


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def test_modules_and_public_classes_say_what_they_are() -> None:
    silent = [
        source.at(node.lineno) + f" {node.name}"
        for source in sources()
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not _explains_itself(node)
    ]
    silent += [source.name for source in sources() if source.tree.body and not ast.get_docstring(source.tree)]

    assert not silent, f"Add a docstring that a newcomer understands: {silent}"


def _explains_itself(node: ast.ClassDef) -> bool:
    """An error's text is in its `__init__`."""
    return bool(ast.get_docstring(node)) or any(
        isinstance(item, ast.FunctionDef) and item.name == "__init__" for item in node.body
    )


def test_no_drawer_for_everything() -> None:
    wrong = [
        source.name
        for source in sources()
        if NAMES_WITHOUT_MEANING & set(source.path.relative_to(ROOT).with_suffix("").parts)
    ]

    assert not wrong, f"Name it after what it holds: {wrong}"
