# make demo   the whole road on embedded images, in a few minutes
# make test   lint, format check, types, the site and the whole test suite
# make test-fast   the tests that are not slow
# make docs   the site, into site/; a dead link fails
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := pyproject.toml setup.py $(wildcard */edgeprune_*/*/*.[ch])

.PHONY: demo test test-fast lint docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-build
	$(BIN)/edgeprune demo --output demo

# One worker for each core, up to four, and one thread for each of them.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-fast: $(VENV)/.ready-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow"

lint: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m edgeprune_benchmarks readme --check

# The variable silences an announcement of the theme's makers.
docs: $(VENV)/.ready-all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "edgeprune needs Python 3.10 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python has no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps carry the date of the last install, so only what is newer of its inputs installs again. The metadata
# that an earlier install left in the checkout would hide the commands of the new one.
$(VENV)/.ready-build: $(INSTALLED) | $(VENV)/bin/python
	@echo "installing into $(VENV); PyTorch is a download of some gigabytes"
	@rm -rf edgeprune.egg-info
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[build]'
	@touch $@

$(VENV)/.ready-all: $(INSTALLED) | $(VENV)/bin/python
	@echo "installing into $(VENV); PyTorch is a download of some gigabytes"
	@rm -rf edgeprune.egg-info
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev,docs]'
	@touch $@ $(VENV)/.ready-build

clean:
	rm -rf $(VENV) build dist *.egg-info demo site
