"""Who may import whom. The table of the design, executable."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.house.sources import PACKAGES, ROOT, Source, sources

OURS = {*PACKAGES, *(file.stem for file in ROOT.glob("*.py"))}

# package -> prefixes of ours that it may import, besides itself
MAY_IMPORT = {
    "domain": (),
    # The signatures alone: an activity's class drags SQLAlchemy into the sandbox.
    "workflows": ("domain", "activities.calls", "activities.options", "activities"),
    "activities": ("domain", "storage"),
    "storage": ("domain",),
    "api": ("domain", "storage", "workflows.gateway", "workflows.names", "settings"),
    "deploy": ("settings", "storage", "startup", "lifecycle", "desk_commands", "workflows.gateway", "workflows.names"),
    # The limits: what they are called, what they mean and what is allowed stands once.
    "settings": ("domain.limits", "domain.proposals", "domain.paper.book"),
    "replay": ("domain", "settings", "activities.agents", "activities.market", "activities.choosing"),
    # How a log line may look.
    "startup": ("settings", "domain.values"),
}

NEVER = {
    "domain": ("temporalio", "sqlalchemy", "fastapi", "psycopg", "structlog", "prometheus_client", "pydantic_settings"),
    "workflows": ("sqlalchemy", "psycopg", "fastapi", "prometheus_client", "pydantic_settings", "requests", "httpx"),
    "storage": ("temporalio", "fastapi", "prometheus_client"),
    "activities": ("fastapi", "pydantic_settings"),
    "api": ("temporalio.worker", "psycopg", "pydantic_settings"),
    "replay": ("temporalio", "sqlalchemy", "psycopg", "fastapi"),
}

WHERE_INSTEAD = (
    "Move what both need into domain/, or hand it over where the process is put together (worker.py, api/app.py)."
)


def _under(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_the_design_lets_it(package: str) -> None:
    wrong = [
        f"{source.at(line)} imports {module}"
        for source in sources()
        if source.package == package
        for module, line in source.imports()
        if module.split(".")[0] in OURS - {package} and not _under(module, MAY_IMPORT[package])
    ]

    assert not wrong, f"{package} may import of ours {MAY_IMPORT[package] or 'nothing'}. {WHERE_INSTEAD}\n" + "\n".join(
        wrong
    )


@pytest.mark.parametrize("package", NEVER)
def test_a_package_keeps_away_from_libraries_that_are_not_its_business(package: str) -> None:
    wrong = [
        f"{source.at(line)} imports {module}"
        for source in sources(package)
        for module, line in source.imports()
        if _under(module, NEVER[package])
    ]

    assert not wrong, f"{package} must not know {NEVER[package]}.\n" + "\n".join(wrong)


def test_workflows_take_of_activities_only_their_signatures() -> None:
    taken = {
        f"{source.at(line)}: {module}"
        for source in sources("workflows")
        for module, line in source.imports()
        if module.split(".")[0] == "activities" and not _under(module, ("activities.calls", "activities.options"))
    }

    assert not taken, f"Import activities.calls and activities.options, nothing else of activities: {taken}"


def test_only_the_place_that_puts_a_process_together_reads_settings() -> None:
    wrong = [
        source.at(line)
        for source in sources("api")
        for module, line in source.imports()
        if module.startswith("settings") and source.name != "api/app.py"
    ]

    assert not wrong, f"api/app.py reads the settings and hands values down; take them as arguments here: {wrong}"


def test_the_workflows_package_itself_is_empty() -> None:
    text = (ROOT / "workflows/__init__.py").read_text()

    assert not text, "The sandbox runs workflows/__init__.py again for every workflow run: keep it empty."


@pytest.mark.parametrize("source", sources("workflows", "activities"), ids=lambda source: source.name)
def test_types_in_signatures_are_imported_for_real(source: Source) -> None:
    hidden = [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]

    assert not hidden, (
        f"{source.name}:{hidden}: Temporal resolves hints at definition; import at the top, without TYPE_CHECKING."
    )


@pytest.mark.parametrize("source", sources("workflows", "domain"), ids=lambda source: source.name)
def test_workflow_code_imports_at_the_top(source: Source) -> None:
    late = [source.at(line) for function in source.functions() for line in _imports_in(function)]

    assert not late, (
        f"Import at the top of the file: a late import runs in the sandbox again, in the middle of a task: {late}"
    )


def _imports_in(function: ast.AST) -> Iterator[int]:
    return (node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))


def test_importing_reads_no_setting_connects_nowhere_and_starts_no_thread() -> None:
    """In a process of its own: imports happen once."""
    # Alembic's own script is run by Alembic, never imported.
    modules = [_module(source) for source in sources() if source.name != "storage/migrations/env.py"]
    code = f"""
import os, sys, threading
os.environ.update(AIS_CYCLE_SECONDS="nonsense", AIS_DATABASE_URL="nonsense", AIS_API_KEY="", AIS_DATA_DIR="/nowhere")
def forbid(event, args):
    if event in ("socket.connect", "socket.bind"):
        raise RuntimeError(f"{{event}} {{args}} while importing")
sys.addaudithook(forbid)
for module in {modules!r}:
    __import__(module)
    assert threading.active_count() == 1, f"{{module}} started a thread"
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, f"Do it in a function that the process calls, not while importing.\n{done.stderr}"


def _module(source: Source) -> str:
    return source.name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
