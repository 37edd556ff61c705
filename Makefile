# Each target does its own set-up; nothing but Python 3.11 and a package index is needed.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup lint format test chaos test-gpu demo bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e ".[train,demo,dev]"
	@touch $(STAMP)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What starts Ray, MLflow or a gang has both cores to itself: gloo suffers when two gangs share them.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not cluster and not chaos" -n 2 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cluster and not chaos"

# The rest of the tables (every method and task on every engine and number of ranks), two Ray nodes, torchrun.
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos

test-gpu: setup
	$(BIN)/python -m pytest -m gpu -rs

demo: setup
	$(BIN)/python -m prunus.service.cli.demo

bench: setup
	$(BIN)/python -m benchmarks.run_all

# The generated pages of docs/reference.
docs: setup
	$(BIN)/python docs/generate.py

# What `make demo` left running first: without its records nobody would find it again.
clean:
	-@test ! -x $(BIN)/prunus || $(BIN)/prunus down --home .prunus
	rm -rf $(VENV) .prunus build dist *.egg-info
