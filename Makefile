# Everything happens in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OLDEST := build/oldest

ONE_THREAD := OMP_NUM_THREADS=1
TWO_PROCESSES := -n 2 --dist loadfile
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest $(TWO_PROCESSES) --durations=15

.PHONY: help setup run test test-slow test-all test-oldest soak check format bench docs notebook
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make .venv and install everything into it

$(VENV)/.ready: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet -e '.[train,sweepers,optimizers,callbacks,curvature,bench,docs,zoo,dev]'
	touch $@

run: setup ## the main command on the embedded data
	$(BIN)/python train.py task_shift_mode=permuted lla.enable_sam=true

test: setup ## tier 1, a quarter of an hour on two cores: every learner, eager and replayed, on an MLP
	$(PYTEST) -m "not slow and not exhaustive"

test-slow: setup ## tier 2, within an hour, in CI: convnets, some compiled programs, real images, a real install, a real SLURM
	$(PYTEST) -m "slow and not exhaustive"

test-all: setup ## tier 3, hours, not in CI: both, every compiled program, the oldest versions, the soak
	$(PYTEST)
	$(MAKE) test-oldest soak

test-oldest: setup ## the fast tests over the lowest versions that setup.py admits, in a venv of their own
	$(PYTHON) -m venv $(OLDEST)
	$(BIN)/python scripts/oldest_versions.py > $(OLDEST)/lowest.txt
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/lowest.txt -e '.[train,sweepers,writer,curvature,dev]'
	$(ONE_THREAD) $(OLDEST)/bin/python -m pytest $(TWO_PROCESSES) -m "not slow and not exhaustive"

soak: setup ## ten minutes of kills, full disks and damaged files, into docs/RELIABILITY.md
	$(BIN)/python scripts/soak.py --minutes 10 --save docs/RELIABILITY.md

check: setup ## style, imports' directions, the library's types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m mypy

format: setup ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## planes and curvature against other programs, into docs/benchmarks.md; the loader against per-sample pipelines
	$(BIN)/python scripts/bench_lla.py --save docs/benchmarks.md
	$(BIN)/python scripts/bench_train.py --save docs/benchmarks.md
	$(BIN)/python scripts/bench_data.py

docs: setup ## remake README's picture and the tables of docs/METRICS.md, print the table of docs/DATA_LOADING.md
	$(BIN)/python scripts/metrics_page.py
	$(BIN)/python train.py task_shift_mode=permuted lla.enable_sam=true use_wandb=false output_project=docs run_name=digits
	cp outputs/docs/mlp/digits/summary/planes.png docs/planes.png
	$(BIN)/python scripts/bench_data.py --markdown

notebook: setup ## write the demo notebook from its script
	$(BIN)/jupytext --quiet --to ipynb experiments/Hessian_and_landscape_plot_with_plasticity_loss/LLA_demo.py
