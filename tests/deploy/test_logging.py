"""The log of a process: nobody who logs waits for whoever reads it, and what it shows does not control a terminal."""

import json
import os
import select
import subprocess
import sys
import threading

from tests.house.sources import ROOT

SECONDS = 180
# As everywhere but in some containers: the lock of a buffered stream is held for as long as a write waits.
BUFFERED = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
START = """
import logging, os, sys
from settings import LogSettings
from startup import configure_logging, leave
import structlog

def begin(log_format):
    configure_logging(LogSettings(log_level="INFO", log_format=log_format))
    return structlog.get_logger("test")
"""
# Two megabytes more than may be held back, which is far more than a pipe takes.
FLOOD = """
log = begin("json")
for number in range(60):
    log.info("x" * 100_000, number=number)
print("not held up", flush=True)
sys.stdin.readline()
log.info("the last")
leave(0)
"""
HOSTILE = """
log = begin("console")
try:
    raise ValueError("\\x1b[2J\\u202e stop\\r\\x07")
except ValueError:
    log.exception("a bug")
    logging.getLogger("other").exception("another \\x1b[31m")
leave(0)
"""


def _run(code: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **BUFFERED}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", START + code], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_nobody_who_logs_waits_for_a_pipe_that_nobody_reads() -> None:
    # Measured before: after 64 KiB the first line of the log held up the whole process, an API's kill with it.
    with _run(FLOOD) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            assert select.select([process.stdout], [], [], SECONDS)[0], "it waits for whoever reads its log"
            assert process.stdout.readline() == b"not held up\n"
            lines: list[bytes] = []
            reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
            reading.start()
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.wait(SECONDS) == 0
            reading.join(SECONDS)
        finally:
            process.kill()

    told = [json.loads(line) for line in lines]
    kept = [each["number"] for each in told if "number" in each]
    assert kept == list(range(len(kept)))
    assert 30 <= len(kept) < 60
    assert [each["event"] for each in told[len(kept) :]] == [
        f"{60 - len(kept)} lines of the log were dropped: nobody read standard error",
        "the last",
    ]


def test_a_process_ends_though_nobody_reads_why() -> None:
    code = 'log = begin("json")\nfor _ in range(10): log.info("x" * 100_000)\nleave("y" * 100_000)'
    with _run(code) as process:
        try:
            assert process.wait(SECONDS) == 1
        finally:
            process.kill()


def test_a_process_ends_though_it_may_start_no_further_thread() -> None:
    code = "import threading\ndef full(_):\n    raise RuntimeError\nthreading.Thread.start = full\nleave(3)"
    with _run(code) as process:
        told, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (3, b"")


def test_a_traceback_does_not_control_the_terminal() -> None:
    with _run(HOSTILE) as process:
        _, told = process.communicate(timeout=SECONDS)

    text = told.decode()
    assert text.count("ValueError: [2J stop") == 2
    assert [character for character in text if not character.isprintable() and character != "\n"] == []


def test_without_standard_error_nothing_is_written_to_whatever_has_its_number() -> None:
    first = "import socket\nmine, theirs = socket.socketpair()\nassert 2 in (mine.fileno(), theirs.fileno())\n"
    code = """
log = begin("json")
log.warning("into a socket")
mine.setblocking(False); theirs.setblocking(False)
import startup
startup.flush_log()
for end in (mine, theirs):
    try:
        assert not end.recv(100)
    except BlockingIOError:
        print("nothing", flush=True)
leave(0)
"""
    environment = {**os.environ, **BUFFERED}
    command = ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, first + START + code]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=SECONDS, check=False)

    assert (done.returncode, done.stdout) == (0, b"nothing\nnothing\n")
