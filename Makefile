# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test quick lint types docs bench byzfl clean

## demo: train with four methods on the embedded digits, print a table, write a report
demo: $(VENV)/.demo
	$(BIN)/tacit compare synchronous local_sgd:period=16 fda:theta=1 fedadam:lr=0.1,server_lr=0.01 \
	    --workers 10 --epochs 300 --target 0.95 --seed 0

## test: the whole test suite
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

## quick: the tests without the slow ones
quick: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

SHORT := benchmarks/fda benchmarks/sketch benchmarks/simulation benchmarks/link benchmarks/streams benchmarks/codecs \
    benchmarks/dgc benchmarks/robust experiments/dgc experiments/fda_topk experiments/ef21_w experiments/dynamic_averaging_mnist \
    experiments/dynamic_averaging_drift experiments/dynamic_averaging_balancing experiments/robustness_bounds \
    experiments/monna_mnist experiments/monna_cifar10 experiments/fda_attacked

## bench: every benchmark and experiment in its short form
bench: $(VENV)/.dev
	for b in $(SHORT); do OMP_NUM_THREADS=1 $(BIN)/python $$b.py --quick || exit 1; done

## byzfl: what benchmarks/robust.py compares with. Without its dependencies: they would bring another torch
byzfl: $(VENV)/.dev
	$(INSTALL) --no-deps byzfl==0.0.11
	$(INSTALL) scipy

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) -e '.[all]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
