"""Our own source files, each parsed once, for the house rules."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "activities",
    "api",
    "cli",
    "console",
    "domain",
    "manual",
    "notify",
    "replay",
    "settings",
    "storage",
    "workflows",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file of ours."""

    path: Path

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def package(self) -> str:
        """`domain` for domain/risk/guards.py, `worker` for worker.py."""
        return self.path.relative_to(ROOT).parts[0].removesuffix(".py")

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of the tree's."""
        return _nodes(self.path)

    def imports(self) -> Iterator[tuple[str, int]]:
        """Every module that is imported anywhere in the file, in full, with its line."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes if isinstance(node, Function))

    def at(self, line: int) -> str:
        return f"{self.name}:{line}"


@cache
def sources(*packages: str) -> tuple[Source, ...]:
    """Of the named packages, or all of them together with the modules at the top."""
    folders = [ROOT / package for package in packages or PACKAGES]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    files += [] if packages else sorted(ROOT.glob("*.py"))
    return tuple(Source(file) for file in files)


@cache
def _parsed(file: Path) -> ast.Module:
    """Not before a test asks for it: of several processes that collect the tests, each runs only some of them."""
    return ast.parse(file.read_text())


@cache
def _nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_parsed(file)))


@cache
def committed_files() -> tuple[Path, ...]:
    """What git tracks; in an unpacked archive, which is nothing but that, the files of the known kinds of place."""
    names = _tracked() if (ROOT / ".git").exists() else _unpacked()
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def _unpacked() -> list[str]:
    """Without what an installation and the tests leave in the folder, and without a user's own files at its top."""
    folders = [*PACKAGES, "tests", "bench", "docs"]
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*")) if file.is_file()]
    files += [
        file
        for kind in ("*.py", "*.md", "*.toml", "requirements*.txt", "*.yml", "Dockerfile", "Makefile")
        for file in ROOT.glob(kind)
    ]
    return [str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts]
