# The same commands on a laptop and in CI. Everything is installed into .venv, nothing outside the folder is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo

.PHONY: demo test test-slow bench ablation lint format clean

demo: $(READY)  ## simulate a city, index it, locate its strips, report
	$(BIN)/geomatch demo -o $(DEMO)

# Threads of OpenMP wait by spinning: on a busy machine tests of small products would take minutes.
test test-slow: export OMP_NUM_THREADS := 1

test: $(READY)  ## the tests that are quick
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

bench: $(READY)  ## what is measured, against whom; see benchmarks/README.md
	for name in exhaustive build search locate cluster startup; do $(BIN)/python benchmarks/$$name.py || exit 1; done

ablation: $(READY)  ## what each part of the encoder's training gives; hours, and goes on where it was ended
	$(BIN)/python benchmarks/ablation.py --into docs/ablation.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=tests:benchmarks $(BIN)/mypy geomatch index training

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench $(DEMO)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
