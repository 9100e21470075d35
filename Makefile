# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test test-all check docs bench clean
demo: $(VENV)/.light      ## install the light core and show what it does on real input
	$(BIN)/loci demo

test: $(VENV)/.full       ## install everything, check, run the tests
	scripts/check
	scripts/test

test-all: $(VENV)/.full   ## the same with the tests that take minutes
	scripts/check
	scripts/test -m ""

check: $(VENV)/.full      ## what pre-commit and CI check: lint, format, types, floors, catalogue
	scripts/check

docs: $(VENV)/.full       ## build the documentation into docs/_build
	$(BIN)/python -m pip install -q -c constraints.txt ".[docs]"
	scripts/docs

bench: $(VENV)/.full      ## a quick run of the benchmarks
	scripts/bench

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "loci needs Python 3.11 or newer, this is %d.%d; run: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.light: $(VENV)/bin/python pyproject.toml
	@test -e $(VENV)/.full || $(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.full: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[all,dev]"
	@touch $@ $(VENV)/.light

clean:
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
