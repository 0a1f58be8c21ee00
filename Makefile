# Set-up, quickstart and tests; every target works on a bare machine with Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup quickstart test lint bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

setup: $(STAMP)

quickstart: setup
	$(BIN)/python jobs/quickstart.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python tests/benchmarks/sweep_overhead.py
	$(BIN)/python tests/benchmarks/finetune_throughput.py
	$(BIN)/python tests/benchmarks/serve_overhead.py
	$(BIN)/python -m tests.benchmarks.stream_throughput jobs/samples/photos
	$(BIN)/python -m tests.benchmarks.stream_memory
	$(BIN)/python -m tests.benchmarks.snapshot
	$(BIN)/python -m tests.benchmarks.remote_transfer
	$(BIN)/python -m tests.benchmarks.balance
	$(BIN)/python -m tests.benchmarks.ddp_throughput
	$(BIN)/python -m tests.benchmarks.telemetry_overhead
	$(BIN)/python -m tests.benchmarks.sweep_scale
	$(BIN)/python -m tests.benchmarks.kill_sweep
	$(BIN)/python -m tests.benchmarks.gp_regret
	$(BIN)/python -m tests.benchmarks.serve_rollout
	$(BIN)/python -m tests.benchmarks.serve_fuzz

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
