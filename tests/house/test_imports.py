"""Who may import whom. The table of the design, executable."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

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
    "api": (
        "console",
        "domain",
        "manual",
        "notify",
        "storage",
        "workflows.gateway",
        "workflows.names",
        "settings",
        "startup",
        "tracing",
    ),
    "notify": ("domain", "storage"),
    # Files for a browser, and a list of them.
    "console": (),
    # The same, of the manual; and what builds it, which runs without the rest.
    "manual": (),
    # The limits: what they are called, what they mean and what is allowed stands once.
    "settings": ("domain.risk.limits", "domain.trading.proposals", "domain.trading.symbols", "domain.paper.book"),
    # What a person types; `ais api` and `ais replay` start what those packages are; `ais log` has the keys of the reports.
    "cli": (
        "api.app_settings",
        "api.descriptors",
        "api.models",
        "api.rows",
        "domain",
        "notify",
        "replay.command",
        "settings",
        "startup",
        "storage",
        "workflows",
    ),
    # The worker puts everything together but the API.
    "worker": ("activities", "domain", "notify", "settings", "startup", "storage", "tracing", "workflows"),
    "replay": (
        "domain",
        "settings",
        "activities.agents",
        "activities.bar_summaries",
        "activities.choosing",
        "activities.market",
    ),
    # How a log line may look.
    "startup": ("settings", "domain.values", "tracing"),
    # What an activity was called with says which command it carries out.
    "tracing": ("activities.calls", "domain.health"),
}

NEVER = {
    "domain": ("temporalio", "sqlalchemy", "fastapi", "psycopg", "structlog", "prometheus_client", "pydantic_settings"),
    "workflows": ("sqlalchemy", "psycopg", "fastapi", "prometheus_client", "pydantic_settings", "requests", "httpx"),
    "storage": ("temporalio", "fastapi", "prometheus_client"),
    "activities": ("fastapi", "pydantic_settings"),
    "api": ("temporalio.worker", "psycopg", "pydantic_settings"),
    "replay": ("temporalio", "sqlalchemy", "psycopg", "fastapi"),
    "notify": ("temporalio", "fastapi", "psycopg", "pydantic_settings"),
}

# The domain's rooms, floor by floor: a room imports from the floors below its own.
FLOORS = (
    ("values", "likeness", "audit"),
    ("health", "keys"),
    ("trading",),
    ("risk", "accounting"),
    ("deciding", "books", "paper"),
    ("desk",),
    ("notices",),
)

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


def test_every_package_has_a_row() -> None:
    assert set(MAY_IMPORT) == OURS, "Say in MAY_IMPORT what a new package may import, and take out what is gone."


def test_every_room_of_the_domain_has_a_floor_and_looks_down_only() -> None:
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    seen, wrong = set(), []
    for source in sources("domain"):
        room = _module(source).removeprefix("domain").removeprefix(".").split(".")[0]
        seen.add(room)
        for module, line in source.imports():
            other = module.split(".")[1] if module.startswith("domain.") else room
            if other != room and floor_of[other] >= floor_of[room]:
                wrong.append(f"{source.at(line)} imports {module}")

    assert seen - {""} == floor_of.keys(), "Give a new room its floor here and in domain/__init__.py."
    assert not wrong, wrong


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
        if module.startswith("settings") and source.name != "api/app_settings.py"
    ]

    where = "api/app_settings.py reads the settings, and api/app.py hands values down"
    assert not wrong, f"{where}; take them as arguments here: {wrong}"


def test_the_workflows_package_itself_is_empty() -> None:
    text = (ROOT / "workflows/__init__.py").read_text()

    assert not text, "The sandbox runs workflows/__init__.py again for every workflow run: keep it empty."


def test_types_in_signatures_are_imported_for_real() -> None:
    hidden = [
        source.at(node.lineno)
        for source in sources("workflows", "activities")
        for node in source.nodes
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]

    assert not hidden, f"Temporal resolves hints at definition; import at the top, without TYPE_CHECKING: {hidden}"


def test_workflow_code_imports_at_the_top() -> None:
    late = [
        source.at(line)
        for source in sources("workflows", "domain")
        for function in source.functions()
        for line in _imports_in(function)
    ]

    assert not late, (
        f"Import at the top of the file: a late import runs in the sandbox again, in the middle of a task: {late}"
    )


def _imports_in(function: ast.AST) -> Iterator[int]:
    return (node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))


# Memory, and time before the first answer, that a desk without the setting which asks for them would pay for nothing.
DEAR = {"apprise", "mcp", "mcp_types", "pyarrow", "redis", "requests"}
IMPORTING = """
import os, sys, threading
os.environ.update(AIS_CYCLE_SECONDS="nonsense", AIS_DATABASE_URL="nonsense", AIS_API_KEY="", AIS_DATA_DIR="/nowhere")
def forbid(event, args):
    if event in ("socket.connect", "socket.bind"):
        raise RuntimeError(f"{event} {args} while importing")
sys.addaudithook(forbid)
import api.app, cli.app, worker
print("dear:", sorted(DEAR & sys.modules.keys()))
for module in MODULES:
    __import__(module)
    assert threading.active_count() == 1, f"{module} started a thread"
sys.stdout.flush()
# Without taking two thousand modules down one by one.
os._exit(0)
"""


@cache
def _importing() -> "subprocess.CompletedProcess[str]":
    """In a process of its own: imports happen once."""
    # Alembic's own script is run by Alembic, never imported.
    modules = [_module(source) for source in sources() if source.name != "storage/migrations/env.py"]
    code = f"DEAR, MODULES = {DEAR!r}, {modules!r}" + IMPORTING
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_importing_reads_no_setting_connects_nowhere_and_starts_no_thread() -> None:
    done = _importing()

    assert done.returncode == 0, f"Do it in a function that the process calls, not while importing.\n{done.stderr}"


def test_what_only_a_setting_asks_for_is_imported_by_nobody_else() -> None:
    done = _importing()

    assert done.stdout == "dear: []\n", f"Import it where it is used.\n{done.stdout}{done.stderr}"


def _module(source: Source) -> str:
    return source.name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def test_every_activity_is_called_on_the_queue_of_its_desk() -> None:
    calls = [
        (source.at(node.lineno), [keyword.arg for keyword in node.keywords])
        for source in sources("workflows")
        if source.name != _CALLING
        for node in source.nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _STARTS
    ]
    wrong = [at for at, arguments in calls if "task_queue" not in arguments]

    assert calls, "no call is found: the names in _STARTS are not those of the code"
    assert not wrong, f"Pass task_queue=host.queue: on the shared queue a stranger's worker draws it first: {wrong}"


def test_every_answer_of_an_activity_is_read_where_what_cannot_be_read_is_a_failed_call() -> None:
    wrong = [
        source.at(node.lineno)
        for source in sources("workflows")
        for node in source.nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _SDK_STARTS and source.name != _CALLING
    ]
    assert not wrong, f"Use answer_of of {_CALLING}: the SDK fails the task of an answer that it cannot read: {wrong}"


_STARTS = ("answer_of", "begin")
_SDK_STARTS = ("workflow.execute_activity", "workflow.start_activity")
_CALLING = "workflows/calling.py"
