# Everything works from a bare machine with python3 and make: each target installs what it needs
# into .venv first. PYTHON chooses the interpreter that .venv is made with (3.11 to 3.13).
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
# The floors that compute without a network or a disk; their coverage is gated.
PURE := components recipe data evaluate
GATED := $(PURE:%=tests/unit/%) tests/unit/cli tests/components

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-coverage test-rest test-slow check format faults bench bench-speed peers docs clean

help:
	@echo "make install   make .venv with the tool and everything to work on it"
	@echo "make demo      fine-tune the starter network on handwritten digits, no network needed"
	@echo "make test      all tests: the fast tier with its coverage gate, then the slow and real ones"
	@echo "make check     ruff, formatting, mypy strict"
	@echo "make faults    harm real runs, resume them and compare; read a million damaged files"
	@echo "make bench     speed and start-up figures, as JSON in docs/benchmarks/"
	@echo "make bench-speed   hours: the same jobs by four other libraries and by bare loops"
	@echo "make peers     make .venv-peers with those libraries"
	@echo "make docs      generate the reference and build the site into site/"
	@echo "make clean     remove .venv and everything that was built"

install: $(STAMP)

# Made anew only when what to install has changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit( \
		f"finetune needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make install PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); the first time takes some minutes"
	@$(PIP) install --constraint constraints.txt --editable ".[dev,docs]"
	@touch $@

demo: install
	$(BIN)/finetune demo

test: test-coverage test-rest test-slow

# One thread a worker: two workers share the cores, and tiny tensors do not gain from threads.
test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not real and not slow" --numprocesses 2

# Of the fast tier what the gate needs: tracing would slow the rest by half.
test-coverage: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not real and not slow" --numprocesses 2 \
		$(GATED) $(PURE:%=--cov=finetune/%) --cov-report=
	$(BIN)/python -m coverage report --skip-covered --fail-under=95

test-rest: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not real and not slow" --numprocesses 2 \
		$(GATED:%=--ignore=%)

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "real or slow" --numprocesses 2 --dist worksteal

check: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: install
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

faults: install
	$(BIN)/python tests/faults/kills.py --kills 50 --out docs/benchmarks/kills.json
	$(BIN)/python tests/faults/faults.py --times 3 --out docs/benchmarks/faults.json
	$(BIN)/python tests/faults/fuzz.py --cases 1000000 --out docs/benchmarks/fuzz.json
	$(BIN)/python docs/generate.py

bench: install
	$(BIN)/python tests/bench/startup.py --out docs/benchmarks/startup.json
	$(BIN)/python tests/bench/demo.py --out docs/benchmarks/demo.json
	$(BIN)/python tests/bench/probe.py --out docs/benchmarks/probe.json
	test -z "$$FINETUNE_ASSETS" || $(BIN)/python tests/bench/default.py
	$(BIN)/python docs/generate.py

# On a quiet machine. What the file has already is not measured again: ARGS="--jobs head".
bench-speed: install peers
	$(BIN)/python tests/bench/speed.py --out docs/benchmarks/speed.json $(ARGS)
	$(BIN)/python docs/generate.py

peers: $(PEERS)/.installed

$(PEERS)/.installed: tests/bench/peers/requirements.txt tests/bench/peers/constraints.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input install \
		--requirement tests/bench/peers/requirements.txt
	@touch $@

docs: install
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -E -d $(VENV)/doctrees docs site
	@echo "site/index.html"

clean:
	rm -rf $(VENV) $(PEERS) build dist site .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find finetune tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
