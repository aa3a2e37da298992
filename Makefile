# The commands for this repository. `make run` is the whole system on one machine.
# Every test has run on 3.11 to 3.13; 3.14 is used only if none of these is found. Each candidate is started as a check: a version
# manager's shim may be on the PATH and not run.
VERSIONS := 13 12 11 14
PYTHON := $(shell for v in $(VERSIONS); do for p in python3.$$v "$$HOME"/.pyenv/versions/3.$$v.*/bin/python python3; do "$$p" -c "import sys, ssl, ensurepip; sys.exit(sys.version_info[:2] != (3, $$v))" 2>/dev/null && echo "$$p" && exit; done; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Without compiled files every process compiles all of AIS again, and a workflow's sandbox does so for each run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run test test-thorough test-oldest check format races chaos chaos-mutants soak bench bench-peers lock audit-deps docs site \
	pictures
help:
	@echo "make run      install, then start everything on this machine (Ctrl-C stops it; ARGS='--port 8001' passes flags)"
	@echo "make install  .venv from hash-locked requirements"
	@echo "make test     the tests with coverage    make check   lint, format, types    make format  fix what can be fixed"
	@echo "make test-thorough   all but the long ones: ten to twenty minutes    make test-oldest   the tests on Python 3.11"
	@echo "make chaos ROUNDS=10 SEED=1   faults, interleavings and a checker    make chaos-mutants   breaks AIS: does the checker notice?"
	@echo "make bench ARGS='replay keys'   only some subjects    make bench-peers   other programs over the same bars"
	@echo "make audit-deps   licences, SBOM and known vulnerabilities of what is locked"
	@echo "make races TRIALS=500   kills race with other events    make soak   the long tests    make bench   what AIS costs"
	@echo "make lock     new lock files      make docs    the generated pages of docs/"
	@echo "make site     docs/ as a site, which the API serves under /manual/      make pictures   new screenshots in docs/pictures/"

install: $(STAMP)

# The stamp is made last, so an install that broke off is repeated.
$(STAMP): requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python that runs was found on the PATH; looked for: $(VERSIONS:%=3.%)." >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -c "import sys; print('Python', sys.version.split()[0], 'of', sys.base_prefix)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@exec $(BIN)/ais dev $(ARGS)

# Python's own monitoring costs a tenth of a tracer. It exists from 3.12 on, for branches from 3.14 on.
VERSION = $(shell $(BIN)/python -c "import sys; print(sys.version_info[1])")
MEASURE = COVERAGE_CORE=$(if $(filter 11,$(VERSION)),ctrace,sysmon)
COVER = --cov --cov-report=term $(if $(filter 12 13,$(VERSION)),,--cov-branch)
# Two more than there are cores: a test waits for servers and processes of its own for more than half of its time.
WORKERS = $(shell $(BIN)/python -c "import os; print(min(6, (os.cpu_count() or 1) + 2))")
QUICK = not long and not thorough
test: install
	$(MEASURE) $(BIN)/python -m pytest -m "$(QUICK)" -n $(WORKERS) --dist worksteal $(COVER) $(ARGS)

# All tests but the long ones, also those that `make test` leaves out: whole desks, and further variants.
test-thorough:
	$(MAKE) test QUICK="not long" ARGS="--hypothesis-profile=thorough $(ARGS)"

# On the oldest supported Python: all tests but whole desks and the browser, which test nothing that depends on the interpreter.
test-oldest:
	$(MAKE) test VERSIONS=11 VENV=.venv-3.11 COVER= ARGS="--ignore=tests/e2e --ignore=tests/console $(ARGS)"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# 500 trials of each race take hours (docs/chaos.md); TRIALS=20 runs all of them in half an hour.
TRIALS = 500
races: install
	$(BIN)/python -m tests.races --trials $(TRIALS) $(ARGS)

# The same seed makes the same schedule; docs/chaos.md says how to read a failure. PREVIOUS is a tag or a commit.
ROUNDS = 10
SEED = 1
PREVIOUS =
chaos: install
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) --seed $(SEED) $(PREVIOUS:%=--previous %) $(ARGS)

# Applies each mutation to AIS until the checker catches it. An hour or more, most of it for mutations that are not caught.
chaos-mutants: install
	$(BIN)/python -m tests.chaos --mutants --rounds 50 --seed $(SEED) $(ARGS)

soak: install
	$(BIN)/python -m pytest -m long $(ARGS)
	TEST_CACHED_RUNS=0 $(BIN)/python -m pytest -m "not long" tests/workflows $(ARGS)

# All subjects, or those that ARGS names; `make bench ARGS=--list` lists them.
bench: install
	$(BIN)/python -m bench $(ARGS)

# Other people's programs, in an environment of their own, over the same bars.
PEERS := .venv-peers
bench-peers: install
	test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r bench/peers/requirements.txt
	$(BIN)/python -m bench peers $(ARGS)

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet
lock:
	$(BIN)/$(LOCK) -o requirements.txt pyproject.toml $(ARGS)
	$(BIN)/$(LOCK) --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml $(ARGS)
	$(BIN)/$(LOCK) -o bench/peers/requirements.txt bench/peers/requirements.in $(ARGS)
	$(BIN)/$(LOCK) --group audit -o requirements-audit.txt $(ARGS)
	$(BIN)/$(LOCK) --group docs -c requirements-dev.txt -o requirements-docs.txt $(ARGS)

# Licences, SBOM and known vulnerabilities of what is locked: dist/sbom.json, and one sentence each (docs/operations.md).
AUDIT := .venv-audit
audit-deps: install $(AUDIT)/.installed
	$(BIN)/python -m tests.dependencies --tools $(AUDIT)/bin $(ARGS)

$(AUDIT)/.installed: requirements-audit.txt
	test -x $(AUDIT)/bin/python || "$(PYTHON)" -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-audit.txt
	@touch $@

docs: install
	$(BIN)/python -m tests.house.generated

# The manual's builder is not needed to run or test AIS, so it has its own environment.
DOCS := .venv-docs
$(DOCS)/.installed: requirements-docs.txt
	@test -n "$(PYTHON)" || { echo "No Python that runs was found on the PATH; looked for: $(VERSIONS:%=3.%)." >&2; exit 1; }
	test -x $(DOCS)/bin/python || "$(PYTHON)" -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-docs.txt
	@touch $@

# The old site is served until the new one is complete.
site: $(DOCS)/.installed
	rm -rf build/manual
	$(DOCS)/bin/zensical build --clean --strict
	rm build/manual/404.html  # for whoever serves it from the root of a host
	$(DOCS)/bin/python -m manual.whole build/manual
	rm -rf manual/site
	mv build/manual manual/site

pictures: install
	$(BIN)/python -m tests.console.pictures
