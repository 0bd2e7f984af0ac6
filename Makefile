# make demo   the whole road on embedded images, in a few minutes
# make test   lint, format check, types, the site and the whole test suite
# make test-fast   the tests that are not slow
# make docs   the site, into site/; a dead link fails
# make js     the package of formats/js for browsers and Node: install what it needs, build, test; needs npm
# make wheels   the sdist, and a wheel for each kind of processor, into dist/; needs a cross compiler
# make wheels-aarch64-test   the wheel for aarch64 on an emulated processor; needs root, qemu-user-static and debootstrap
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := pyproject.toml setup.py $(wildcard */edgeprune_*/*/*.[ch])

.PHONY: demo test test-fast lint docs js viewer wheels wheels-aarch64-test clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-build
	$(BIN)/edgeprune demo --output demo

# One worker for each core, up to four, and one thread for each of them. Bytecode is kept, of which pytest makes its
# own: without it each worker compiles all tests, and each process that they start the packages, for ten seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	--numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: lint
	$(PYTEST)

test-fast: $(VENV)/.ready-all
	$(PYTEST) -m "not slow"

lint: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m edgeprune_benchmarks readme --check

# The variable silences an announcement of the theme's makers. Where `make js` has run, the viewer is built anew.
docs: $(VENV)/.ready-all $(if $(wildcard formats/js/node_modules),viewer)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

NPM := npm --prefix formats/js
js: $(VENV)/.ready-all
	$(NPM) install --no-audit --no-fund
	$(NPM) run build
	PYTHON=$(abspath $(BIN)/python) $(NPM) test

viewer:
	$(NPM) run --silent build

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

# For glibc 2.17 and later, of 2012: what a wheel's libraries ask for is looked up in them.
MACHINES := x86_64 aarch64
LIBC := manylinux_2_17
wheels: $(VENV)/.ready-release
	rm -rf dist
	$(BIN)/python -m build --sdist --no-isolation --outdir dist
	for machine in $(MACHINES); do \
	  CC=$$machine-linux-gnu-gcc LDSHARED="$$machine-linux-gnu-gcc -shared" EDGEPRUNE_KERNELS=required \
	    _PYTHON_HOST_PLATFORM=linux-$$machine $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation \
	    --config-settings=--build-option=--plat-name=$(LIBC)_$$machine --wheel-dir dist dist/*.tar.gz || exit 1; \
	  $(BIN)/auditwheel show dist/*_$$machine.whl | tr '\n' ' ' | grep -q "tag: \"$(LIBC)_$$machine\"" \
	    || { echo "the wheel for $$machine asks for more than $(LIBC)" >&2; exit 1; }; \
	done
	ls -l dist

# Of the wheels that `make wheels` has built.
wheels-aarch64-test: | $(VENV)/bin/python
	PYTHON=$(abspath $(BIN)/python) tests/aarch64/emulate.sh dist/*_aarch64.whl dist/*_$$(uname -m).whl

$(VENV)/.ready-release: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check auditwheel build 'setuptools>=77'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo site formats/js/dist formats/js/node_modules
