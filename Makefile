# Everything a developer runs. A fresh clone needs python3 (3.11 or newer), make and a way to PyPI, nothing else.
#
#   make test TEST_ARGS="-n 2 tests/cli"       part of the tests, in two processes
#   make bench BENCH_ARGS="--mnist DIR"        one of the benchmarks, BENCH= names another
#   make PYTHON=python3.12 TORCH_SPEC="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" test

PYTHON ?= python3
VENV ?= .venv
TORCH_SPEC ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
TEST_ARGS ?= -n 2
BENCH ?= benchmarks/mnist.py
BENCH_ARGS ?= --help
MUTANTS_ARGS ?= --sample 8

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv test lint format demo bench fuzz mutants clean

help:
	@echo "make test    run all tests"
	@echo "make lint    ruff, formatting, types"
	@echo "make format  let ruff write the formatting"
	@echo "make demo    the six commands on a small trained network"
	@echo "make bench   measure, print ratios"
	@echo "make fuzz    the property tests, many more examples"
	@echo "make mutants do tests notice one change at a time?"
	@echo "make clean   remove what was built, the environment too"

venv: $(READY)

# torch goes first and alone: where it comes from (PyPI, a wheel folder, a CUDA index) differs between machines, and
# what follows must not choose again. torchvision and timm, the model zoo of the tests, therefore come without their
# needs; the line before brings these, less torch. The stamp makes set-up happen once, and again when the pins change.
$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_SPEC)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) setuptools
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-build-isolation -e ".[dev]"
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) datasets huggingface_hub pillow PyYAML safetensors transformers
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) --no-deps torchvision timm
	@touch $(READY)

# One thread: the networks of the tests are small, and threads that wait for each other on a busy machine cost minutes.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v node >/dev/null; then $(BIN)/pyright; \
	else echo "lint: types not checked: pyright needs node, which is not installed"; fi

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

demo: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" bash sample_models/demo.sh

bench: venv
	$(BIN)/python $(BENCH) $(BENCH_ARGS)

fuzz: venv
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -m hypothesis $(TEST_ARGS)

# Goes on where it was stopped: results are kept in .mutants.jsonl. MUTANTS_ARGS="--sample 0 compaction/verify" for one module.
mutants: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mutants $(MUTANTS_ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
