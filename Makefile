# Everything a contributor needs; each target sets up what it uses, and says nothing new when nothing changed.
# Variables: PYTHON (3.11–3.13), VENV, WORKERS (pytest processes), DATA, MODEL, ONLY and ROUNDS (for `make bench`).

VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := $(VENV)/.peers-installed

# The first interpreter of a supported version; pyenv shims of absent versions fail the probe and are passed over.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	"$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 \
	&& { echo "$$candidate"; break; }; done)

.PHONY: help install demo test check lint types imports tests bench faults format clean

help:
	@echo "make demo     run the whole story on a small model and data that ship with the package (no network)"
	@echo "make test     everything that must pass: lint, types, imports, tests, benchmarks at toy size"
	@echo "make check    the same; its parts are make lint, types, imports and tests"
	@echo "make bench    benchmarks at full size, written to docs/benchmarks.md (DATA=folder MODEL=folder for real data;"
	@echo "              ONLY=\"scan sql\" for a part; ROUNDS=5 for less time than 50 minutes)"
	@echo "make faults   kills, full disks, flipped bits and races at full size; takes hours"
	@echo "make format   let ruff format the sources"
	@echo "make clean    remove the virtual environment, caches and build results"

install: $(INSTALLED)

# Dependency groups need pip 25.1, so pip comes first.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --editable . --group dev
	@touch $@

demo: $(INSTALLED)
	$(BIN)/nait-store demo --folder demo-store

test: check

check: lint types imports tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

# One file's tests stay in one process, so that what it builds once is built once. The processes share the cores:
# torch's threads on top would only wait for each other.
tests: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 30 --durations-min 5

# What the store is compared with; a benchmark says which of them are absent.
$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --group bench \
		|| echo "make: not all competitors could be installed; the tables will say which are absent" >&2
	@touch $@

bench: $(PEERS)
	$(BIN)/python -m benchmarks.run_all $(ONLY) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)")

FAULTS := "kills --backend local --points 340 --real-model 10" "kills --backend s3 --points 200" \
	"appends --backend local" "appends --backend s3" no_space compaction purges sharing \
	"sharing --backend s3" "flips --files 100" catalog many_versions

# Every promise about faults; each module prints its table, and make stops where one is broken.
faults: $(INSTALLED)
	@for fault in $(FAULTS); do echo "--- $$fault"; \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults.$$fault || exit 1; done

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
