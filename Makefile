# Each target does its own set-up; nothing but Python 3.11 and a package index is needed.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements.lock
# Share of the lines of the rooms that unit tests run, in percent; fewer fail the tests.
COVERAGE_FLOOR ?= 54
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

UNIT := not cluster and not chaos and not gpu

.PHONY: setup lock lint format test test-python test-pythons test-lowest chaos test-gpu demo bench clean

setup: $(STAMP)

# torch first: a build for this machine, which pip finds by the exact release. Then what was tested together.
$(STAMP): pyproject.toml $(LOCK)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c $(LOCK) -e ".[train,postgres,demo,dev]"
	$(BIN)/prunus doctor --repair
	@touch $(STAMP)

# Write down what is installed, after upgrades that passed all tests. Local parts of releases (+cpu) are left out.
lock: setup
	@sed -n '/^#/p' $(LOCK) > $(VENV)/lock
	$(BIN)/pip freeze --all --exclude-editable --exclude pip | sed -n 's/^\([A-Za-z0-9._-]*==[^+]*\).*/\1/p' >> $(VENV)/lock
	@mv $(VENV)/lock $(LOCK)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What starts Ray, MLflow or a gang has both cores to itself: gloo suffers when two gangs share them.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(UNIT)" -n 2 --dist loadfile --cov --cov-fail-under=$(COVERAGE_FLOOR)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cluster and not chaos"

# The unit tests of the light install (no torch, no Ray) under another Python: make test-python PYTHON=python3.12
test-python:
	@test -x $(VENV)-$(notdir $(PYTHON))/bin/python || $(PYTHON) -m venv $(VENV)-$(notdir $(PYTHON))
	$(VENV)-$(notdir $(PYTHON))/bin/pip install --quiet -c $(LOCK) -e ".[test]"
	OMP_NUM_THREADS=1 $(VENV)-$(notdir $(PYTHON))/bin/python -m pytest tests -m "$(UNIT)" -n 2 --dist loadfile

test-pythons:
	$(MAKE) test-python PYTHON=python3.12
	$(MAKE) test-python PYTHON=python3.13
	$(MAKE) test-lowest

# The same on the oldest releases that pyproject.toml allows. They warn of each other: that is no defect of ours.
test-lowest:
	@test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet -c requirements.lowest -e ".[test]"
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest tests -m "$(UNIT)" -n 2 --dist loadfile \
		-W ignore::DeprecationWarning

# The rest of the tables (every method and task on every engine and number of ranks), two Ray nodes, torchrun.
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos

test-gpu: setup
	$(BIN)/python -m pytest -m gpu -rs

demo: setup
	$(BIN)/python -m prunus.service.cli.demo

bench: setup
	$(BIN)/python -m benchmarks.run_all

# What `make demo` left running first: without its records nobody would find it again.
clean:
	-@test ! -x $(BIN)/prunus || $(BIN)/prunus down --home .prunus
	rm -rf $(VENV) $(VENV)-* .prunus build dist *.egg-info
