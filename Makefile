# Everything a person types here. `make run` is the whole system on one machine.
# Every test has run on 3.11 to 3.13; 3.14 is taken where none of them is found. One that really runs: a version manager's
# stand-in may be on the PATH and not start.
VERSIONS := 13 12 11 14
PYTHON := $(shell for v in $(VERSIONS); do for p in python3.$$v "$$HOME"/.pyenv/versions/3.$$v.*/bin/python python3; do "$$p" -c "import sys, ssl, ensurepip; sys.exit(sys.version_info[:2] != (3, $$v))" 2>/dev/null && echo "$$p" && exit; done; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Without compiled files every process compiles all of AIS anew, and a workflow's sandbox does so for each run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run test test-oldest check format races soak bench lock docs
help:
	@echo "make run      install, then start everything on this machine (Ctrl-C stops it; ARGS='--port 8001' passes flags)"
	@echo "make install  .venv from hash-locked requirements"
	@echo "make test     the tests with coverage    make check   lint, format, types    make format  fix what can be fixed"
	@echo "make test-oldest   the tests on Python 3.11"
	@echo "make races / soak / bench   the long ones      make lock   new lock files      make docs    docs/settings.md"

install: $(STAMP)

# The stamp is made last, so an install that broke off is done again.
$(STAMP): requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python that runs was found on the PATH; looked for: $(VERSIONS:%=3.%)." >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -c "import sys; print('Python', sys.version.split()[0], 'of', sys.base_prefix)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@exec $(BIN)/ais dev $(ARGS)

# Python's own monitoring costs a tenth of what a tracer does. It is there from 3.12 on, and for branches from 3.14 on.
VERSION = $(shell $(BIN)/python -c "import sys; print(sys.version_info[1])")
MEASURE = COVERAGE_CORE=$(if $(filter 11,$(VERSION)),ctrace,sysmon)
COVER = --cov --cov-report=term $(if $(filter 12 13,$(VERSION)),,--cov-branch)
# One more than there are cores: half of the time a test waits for a server of its own.
WORKERS = $(shell $(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
test: install
	$(MEASURE) $(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist worksteal $(COVER) $(ARGS)

# The oldest Python that is promised: all but whole desks, of which nothing else depends on the interpreter.
test-oldest:
	$(MAKE) test VERSIONS=11 VENV=.venv-3.11 COVER= ARGS="--ignore=tests/e2e $(ARGS)"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

races: install
	$(BIN)/python -m pytest tests/races $(ARGS)

soak: install
	$(BIN)/python -m pytest -m long --ignore=tests/races $(ARGS)

bench: install
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m bench.replay
	$(BIN)/python -m bench.kill
	$(BIN)/python -m bench.slow

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet
lock:
	$(BIN)/$(LOCK) -o requirements.txt pyproject.toml $(ARGS)
	$(BIN)/$(LOCK) --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml $(ARGS)

docs: install
	$(BIN)/python -m deploy.settings_page > docs/settings.md
