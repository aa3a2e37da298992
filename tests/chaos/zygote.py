"""Starts processes of AIS in milliseconds: everything is imported once, and each process is a fork of that.

A fork is a process like any other: it has its own pid, can be killed, stopped and resumed, and shares nothing that it writes.
What it saves is the two seconds in which an interpreter imports AIS, so that a round of eight seconds can see ten deaths.

    {"argv": ["worker"], "env": {…}, "log": "…"}     a line in
    {"pid": 123}                                     a line out
    {"exited": 123, "code": 0}                       a line out, whenever one ends
"""

import contextlib
import gc
import json
import os
import random
import select
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

_started: set[int] = set()


def main() -> None:
    """Until standard input ends. With the argument `worker` it starts workers alone, of a tree that may have no other part."""
    _import_worker() if sys.argv[1:] == ["worker"] else _import_everything()
    gc.collect()
    gc.freeze()
    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)
    signal.set_wakeup_fd(mouth)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    say({"ready": os.getpid()})
    buffer = b""
    while True:
        readable, _, _ = select.select([0, ears], [], [])
        if ears in readable:
            os.read(ears, 4096)
            _tell_who_ended()
        if 0 in readable:
            chunk = os.read(0, 65536)
            if not chunk:
                _end_all()
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                _start(json.loads(line), (ears, mouth))


def say(what: dict[str, Any]) -> None:
    """One line out."""
    os.write(1, json.dumps(what).encode() + b"\n")


def _import_everything() -> None:
    import uvicorn.lifespan.on
    import uvicorn.loops.uvloop
    import uvicorn.protocols.http.httptools_impl

    import api.app
    import cli.app
    import cli.lifecycle
    import cli.opening
    import cli.operate
    import tests.venues.aster.fake_server
    import worker

    assert all(
        (worker, cli.app, api.app, cli.lifecycle, cli.opening, cli.operate, tests.venues.aster.fake_server, uvicorn)
    )


def _import_worker() -> None:
    import worker

    assert all((worker,))


def _end_all() -> None:
    """Whoever asked for them is gone, or broke off."""
    for pid in _started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell_who_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _started.discard(pid)
        say({"exited": pid, "code": os.waitstatus_to_exitcode(status)})


def _start(order: dict[str, Any], pipe: tuple[int, int]) -> None:
    pid = os.fork()
    if pid == 0:
        _become(order, pipe)
    _started.add(pid)
    say({"pid": pid})


def _become(order: dict[str, Any], pipe: tuple[int, int]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for end in pipe:
            os.close(end)
        _redirect(order["log"])
        # Every fork would draw the same numbers.
        random.seed()
        os.environ.update(order["env"])
        os.chdir(order["folder"])
        _run(order["argv"])
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def _redirect(log: str) -> None:
    nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _run(argv: list[str]) -> None:
    sys.argv = argv
    if argv[0] == "worker":
        import worker
        from tests.chaos import stepped_clock

        _take_tasks_of(os.environ.get("CHAOS_QUEUE"), worker)
        stepped_clock.install(Path(os.environ["CHAOS_CLOCK"]))
        worker.main()
    elif argv[0] == "venue":
        from tests.venues.aster import fake_server

        fake_server.main()
    else:
        from cli.app import main as ais
        from cli.commands import lifecycle

        # When the person asked: a fork was not started when its modules were imported.
        vars(lifecycle)["STARTED_AT"] = datetime.now(UTC)
        _begin_with_schema(int(os.environ["CHAOS_SCHEMA"]))
        _take_tasks_of(os.environ.get("CHAOS_QUEUE"), sys.modules.get("cli.opening"))
        ais()


def _take_tasks_of(queue: str | None, module: ModuleType | None) -> None:
    """Workflow tasks go through a queue of the desk's own, where it has one: other desks' workers may end as they like."""
    if queue and module:
        from workflows import names

        vars(module)["names"] = SimpleNamespace(**vars(names) | {"TASK_QUEUE": queue})


def _begin_with_schema(version: int) -> None:
    """A desk that this process starts begins with the rules of an earlier release, which its first run keeps."""
    from domain.desk.carried import Carried

    Carried.model_fields["schema_version"].default = version
    Carried.model_rebuild(force=True)


if __name__ == "__main__":
    main()
