"""AIS_TRACES_URL: what it may be, and what a process without the packages of the extra `traces` does."""

import json
import logging
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from pydantic import SecretStr, ValidationError

from settings import TraceSettings, explain
from startup import open_traces
from tests.house.sources import ROOT

# As where `pip install ais` did not bring the extra: the API of OpenTelemetry is there, because the MCP client needs it.
WITHOUT = """
import sys
class Away:
    def find_spec(self, name, *rest):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Away())
"""
# The packages of worker and API are imported once; each start is a child of this process.
STARTS = """
import json, os
import worker
from api.app import create_app

def start_worker():
    sys.argv = ["worker.py"]
    worker.main()

def neither_needs_them():
    create_app()
    print("imported" if "tracing" in sys.modules else "not imported", file=sys.stderr, flush=True)

def start(run, url):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, sys.stderr.fileno())
        os.environ["AIS_TRACES_URL"] = url
        run()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as errors:
        said = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said

url = "http://user:hunter2@127.0.0.1:4318"
print(json.dumps([start(start_worker, url), start(create_app, url), start(neither_needs_them, "")]), flush=True)
os._exit(0)
"""


def test_without_the_packages_a_process_starts_only_without_the_setting_and_says_what_to_install() -> None:
    basics = {"AIS_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none", "AIS_API_KEY": "k3yqZ8wLx0vT2rPd6mNb"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIS_")}
    code = [sys.executable, "-c", WITHOUT + STARTS]
    done = subprocess.run(code, cwd=ROOT, env=own | basics, capture_output=True, text=True, timeout=180)

    assert done.returncode == 0, done.stderr
    refused = [1, "AIS_TRACES_URL needs packages that are not installed: pip install 'ais[traces]'\n"]
    assert json.loads(done.stdout) == [refused, refused, [0, "not imported\n"]]


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://user:secret@traces.example/", "https://user:secret@traces.example/v1/traces"),
        ("http://jaeger:4318/in/v1/traces", "http://jaeger:4318/in/v1/traces"),
        ("  ", None),
    ],
)
def test_a_url_without_a_path_means_the_usual_one(given: str, used: str | None) -> None:
    assert TraceSettings(traces_url=SecretStr(given)).url == used


@pytest.mark.parametrize("given", ["hunter2", "grpc://u:hunter2@host:4317", "http://u:hunter2@", "http://h:hunter2/x"])
def test_a_wrong_url_is_named_and_never_printed(given: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TraceSettings(traces_url=SecretStr(given))
    assert "AIS_TRACES_URL" in explain(caught.value)
    assert "hunter2" not in explain(caught.value) + repr(TraceSettings(traces_url=SecretStr("http://u:hunter2@h")))


def test_no_url_means_no_traces() -> None:
    assert open_traces(TraceSettings(traces_url=None), "api", "main") is None


class _Receiver(BaseHTTPRequestHandler):
    """Takes what it is sent, and notes where to."""

    taken: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


async def test_no_log_holds_a_key_that_stands_in_the_url(caplog: pytest.LogCaptureFixture) -> None:
    """Found: with AIS_LOG_LEVEL=DEBUG the library below logged the path of each delivery, query and all."""
    caplog.set_level(logging.DEBUG)
    with HTTPServer(("127.0.0.1", 0), _Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_port}/v1/traces?key=hunter2"
        traces = open_traces(TraceSettings(traces_url=SecretStr(url)), "api", "main")
        assert traces
        with traces.request({"type": "http", "method": "GET", "headers": []}):
            pass
        traces._provider.force_flush()
        await traces.close()
        receiver.shutdown()
    assert _Receiver.taken == ["/v1/traces?key=hunter2"]
    assert "hunter2" not in caplog.text
