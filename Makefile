# Each target makes the virtual environment with pip if it is missing.
VENV ?= .venv
# The newest that runs, of those that the pins hold for. A name on the PATH is not enough: pyenv has empty ones; and one
# package (mojimoji, for Japanese lyrics) has no wheel for 3.13 and is compiled there.
USABLE := import shutil, sys; sys.exit(sys.version_info >= (3, 13) and not shutil.which("g++"))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11; do $$name -c '$(USABLE)' 2>&- && echo $$name && break; done)
BIN := $(VENV)/bin

.PHONY: demo fast test coverage slow dev lint bench other-cpu bench-gpu clap-parity fadtk-published

demo: $(VENV)/installed
	$(BIN)/lofi demo

# One thread each: the workers of pytest would otherwise fight over two cores. Three, since tests wait for processes that
# they start. Byte code is kept, whatever the environment says: without it each worker rewrites 5,000 assertions in each run.
test: $(VENV)/installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow and not gpu"
	$(BIN)/lofi constitution --audit-only

# What trains nothing and encodes no music: under a minute, for while one works.
PURE := $(addprefix lofi_assets_tests/,cli constitution dataset files html lofi_onnx lyrics metrics pages sources styles)
# Among them, but through the whole lineage, or with whole encoders.
HEAVY := $(addprefix --ignore=lofi_assets_tests/,metrics/test_clap_conversion.py metrics/test_metrics_proof.py sources/test_revocation.py)
fast: $(VENV)/installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu" $(HEAVY) $(PURE) lofi_assets_tests/test_*.py

# Which branches no test takes: a report to read, with no threshold.
coverage: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu" --cov --cov-report=term --cov-report=html

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

# A command as on a CPU without AVX-512, VNNI and AMX: libraries take other kernels there, and no verdict may differ.
RUN ?= $(BIN)/lofi demo
other-cpu: $(VENV)/installed
	$(BIN)/python -m lofi_assets_tests.other_cpu $(RUN)

# Steps, memory, kernels, sampling and exactness at the real size on this machine's GPU, as JSON. UPSTREAM=DIR: its classes beside.
bench-gpu: $(VENV)/installed
	$(BIN)/python -m lofi_assets_tests.bench.gpu $(if $(UPSTREAM),--upstream $(UPSTREAM)) --to bench-gpu.json

# FAD against what fadtk 1.1.0 publishes, from its own wheel's clips: fetches 180 MB from PyPI, takes half an hour.
fadtk-published: $(VENV)/installed
	$(BIN)/python -m lofi_assets_tests.metrics.fadtk_published .fadtk

# Our conversion of CLAP against the package laion-clap, in an environment of its own, which must not meet ours.
CLAP_VENV ?= .venv-clap
clap-parity: $(CLAP_VENV)/installed
	$(CLAP_VENV)/bin/python -m lofi_assets_tests.metrics.clap_parity

# laion-clap 1.1.7 declares numpy 1 and runs on numpy 2; the extra names what it imports, declared or not.
$(CLAP_VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(CLAP_VENV)
	$(CLAP_VENV)/bin/python -m pip install --quiet --constraint requirements.txt --editable ".[laion-clap]"
	$(CLAP_VENV)/bin/python -m pip install --quiet --no-deps laion-clap==1.1.7
	touch $@

$(VENV)/installed: requirements.txt pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 (this one \
	with g++ and its headers) is needed: install one, or name it, as in 'make demo PYTHON=/opt/bin/python3.12'"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
