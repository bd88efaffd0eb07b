# Everything here starts from plain Python and make; each target sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTEST_ARGS ?= -n auto
PG15_BIN ?= /usr/lib/postgresql/15/bin

# A second database version is tested where its binaries are installed.
HAS_PG15 := $(wildcard $(PG15_BIN)/initdb)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-pg15 conformance check format bench db sql-toc requirements clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make $(VENV) with both distributions (editable) and the test requirements

$(STAMP): requirements/dev.txt pyproject.toml worker/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "duragraph: $(PYTHON) is older than Python 3.11; run make PYTHON=python3.11 (or newer)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e worker
	@touch $(STAMP)

demo: setup ## a document agent over a real folder, with a worker killed half-way (DEMO_PATH=folder)
	$(BIN)/python examples/document_agent/demo.py

test: setup ## every test on the embedded PostgreSQL 18, then the database tests on PostgreSQL 15 where it is installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)
ifneq ($(HAS_PG15),)
	$(MAKE) --no-print-directory test-pg15
else
	@echo "PostgreSQL 15 is not installed in $(PG15_BIN): its round of database tests is left out"
endif

test-pg15: setup
	DATABASE_URL= DURAGRAPH_TEST_PG=$(PG15_BIN) $(BIN)/python -m pytest $(PYTEST_ARGS) tests/sql

conformance: setup ## the black-box suite of the LangGraph API and its JavaScript client alone (HOSTED=native or langgraph graphs)
	HOSTED=$(HOSTED) $(BIN)/python -m pytest tests/e2e/test_conformance.py

check: setup ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## rewrite the Python files as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## the figures, as ratios of one run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	$(BIN)/python -m tests.bench

db: setup ## psql into the embedded database of `duragraph dev`
	@$(BIN)/python -m duragraph.postgres psql

sql-toc: setup ## restate the list of files in sql/install.sql
	$(BIN)/python -m duragraph.sqlfiles --write

# Needs uv (pip install uv). The files hold versions and hashes and no address.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make requirements"

# npm leaves out where packages come from (.npmrc), but not who would like to be paid for them.
UNFUND := node -e 'const fs = require("fs"), lock = JSON.parse(fs.readFileSync("package-lock.json")); \
	for (const one of Object.values(lock.packages)) delete one.funding; \
	fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")'

requirements: ## pin the requirements anew
	$(LOCK) --all-extras pyproject.toml worker/pyproject.toml requirements/dev.in -o requirements/dev.txt >/dev/null
	$(LOCK) requirements/bench.in -o requirements/bench.txt >/dev/null
	$(LOCK) requirements/published.in -o requirements/published.txt >/dev/null
	$(LOCK) requirements/langgraph_api.in -o requirements/langgraph_api.txt >/dev/null
	for line in tests/conformance/js/*/; do (cd $$line && npm install --package-lock-only --silent && $(UNFUND)); done

clean: ## remove what setup, the tests and `duragraph dev` made, the local database included
	-test -x $(BIN)/python && $(BIN)/python -m duragraph.postgres stop
	rm -rf $(VENV) .ci-venv .duragraph build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
