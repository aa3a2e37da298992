# Everything a person types here. `make run` is the whole system on one machine.
# The newest supported one that really runs: a version manager's stand-in may be on the PATH and not start.
PYTHON := $(shell for v in 14 13 12 11; do for p in python3.$$v "$$HOME"/.pyenv/versions/3.$$v.*/bin/python python3; do "$$p" -c "import sys, ssl, ensurepip; sys.exit(sys.version_info[:2] != (3, $$v))" 2>/dev/null && echo "$$p" && exit; done; done)
BIN := .venv/bin
STAMP := .venv/.installed
# Without compiled files every process compiles all of AIS anew, and a workflow's sandbox does so for each run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run test check format races soak bench lock docs
help:
	@echo "make run      install, then start everything on this machine (Ctrl-C stops it; ARGS='--port 8001' passes flags)"
	@echo "make install  .venv from hash-locked requirements"
	@echo "make test     the tests with coverage    make check   lint, format, types    make format  fix what can be fixed"
	@echo "make races / soak / bench   the long ones      make lock   new lock files      make docs    docs/settings.md"

install: $(STAMP)

# The stamp is made last, so an install that broke off is done again.
$(STAMP): requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed, and none that runs was found on the PATH." >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@exec $(BIN)/ais dev $(ARGS)

# Python's own monitoring costs a tenth of what a tracer does. It is there from 3.12 on, and for branches from 3.14 on.
MEASURE = $(shell $(BIN)/python -c "import sys; v = sys.version_info[:2]; \
	print('COVERAGE_CORE=ctrace' if v < (3, 12) else 'COVERAGE_CORE=sysmon')")
BRANCHES = $(shell $(BIN)/python -c "import sys; v = sys.version_info[:2]; \
	print('' if v in ((3, 12), (3, 13)) else '--cov-branch')")
test: install
	$(MEASURE) $(BIN)/python -m pytest -m "not long" -n auto --maxprocesses 4 --dist worksteal \
		--cov $(BRANCHES) --cov-report=term $(ARGS)

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

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet
lock:
	$(BIN)/$(LOCK) -o requirements.txt pyproject.toml $(ARGS)
	$(BIN)/$(LOCK) --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml $(ARGS)

docs: install
	$(BIN)/python -m deploy.settings_page > docs/settings.md
