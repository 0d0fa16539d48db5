# Each target makes the virtual environment with pip if it is missing.
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(VENV)/bin
# Blank is unset, as for every variable of this project.
ifeq ($(strip $(DAGSTER_HOME)),)
override DAGSTER_HOME := $(CURDIR)/.dagster
endif
export DAGSTER_HOME

.PHONY: demo test slow dev lint bench

demo: $(VENV)/installed
	$(BIN)/lofi demo

# One thread each: the two workers of pytest would otherwise fight over two cores.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"
	$(BIN)/lofi constitution --audit-only

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

dev: $(VENV)/installed
	$(BIN)/lofi dev

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m lofi_assets_tests.bench

$(VENV)/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
