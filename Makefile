# Two commands do everything on a fresh machine with Python >= 3.11:
#   make run    installs, starts two local workers and a root, prints the URL, opens a chat
#   make test   installs the test extras and runs the whole suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := dllama kernels cluster api tests benchmarks examples
WORKERS ?= 2
PORT ?= 8080

TESTERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n + 1 : 4)))
CHAOS ?= --faults 1000 --streams 16

.PHONY: run test test-all test-arm64 check check-fast collect faults fuzz chaos format bench clean size

# One stamp a set of extras: made again when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"dllama needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# make run MODEL=path/to/model.gguf serves another model.
run: $(VENV)/.installed
	$(BIN)/dllama up --n-workers $(WORKERS) --port $(PORT) $(if $(MODEL),--model $(MODEL))

# A process more than there are cores, as a quarter of the time tests wait; each with whole files in the
# order of tests/conftest.py. Hundreds of processes import our modules: they may keep them compiled,
# whatever the environment says.
test: $(VENV)/.installed-dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

# Types of weights too that are made as others are, and three times as many generated examples.
test-all: export DLLAMA_TESTS = all
test-all: test

# Format, lint, types, layers and the tests that need no compiler: about a minute.
check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(wildcard $(PACKAGES))
	$(BIN)/ruff check $(wildcard $(PACKAGES))
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

# Compiles the tests once, which each process that runs them would do at its start.
collect: $(VENV)/.installed-dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -q --collect-only >/dev/null

check-fast: $(VENV)/.installed-dev
	$(BIN)/ruff format --check $(wildcard $(PACKAGES))
	$(BIN)/ruff check $(wildcard $(PACKAGES))

format: $(VENV)/.installed-dev
	$(BIN)/ruff format $(wildcard $(PACKAGES))
	$(BIN)/ruff check --fix $(wildcard $(PACKAGES))

# Puts small faults into a copy, one at a time, and says which no test catches. About an hour.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults $(FAULTS)

# Hurts a cluster under load, at random, and says what came out differently. About an hour and a
# half; make chaos CHAOS="--faults 50 --seed 1" is shorter. Links are cut in namespaces, as root.
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos $(CHAOS)

# A million hostile frames into every socket and decoder, and a table. Some minutes.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.cluster.fuzz

# Runs the kernels and the packaged model on emulated AArch64 processors. Fetches 180 MB once, then
# some 10 minutes of a core; make test-arm64 ARM64="--only max products" is shorter.
test-arm64: $(VENV)/.installed-dev
	$(BIN)/python -m tests.arm64 $(ARM64)

# Writes random models of real shapes to .cache and measures them.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.compare $(if $(PEER_PYTHON),--peer-python $(PEER_PYTHON))

size:
	@for p in $(wildcard $(PACKAGES)); do \
	  printf '%-12s %6d lines in %3d files\n' $$p $$(cat $$(find $$p -name '*.py') | wc -l) $$(find $$p -name '*.py' | wc -l); done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
