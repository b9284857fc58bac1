# Everything happens in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup run test test-slow test-all soak check format bench docs notebook
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make .venv and install everything into it

$(VENV)/.ready: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet -e '.[train,sweepers,optimizers,callbacks,curvature,bench,docs,dev]'
	touch $@

run: setup ## the main command on the embedded data
	$(BIN)/python train.py task_shift_mode=permuted lla.enable_sam=true

test: setup ## the test suite, some minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: setup ## what takes longer: real images, a real install, a real SLURM
	$(BIN)/python -m pytest -m slow

test-all: test test-slow soak ## all of them, and the soak

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
	$(BIN)/python scripts/bench_data.py

docs: setup ## remake README's picture and the tables of docs/METRICS.md, print the table of docs/DATA_LOADING.md
	$(BIN)/python scripts/metrics_page.py
	$(BIN)/python train.py task_shift_mode=permuted lla.enable_sam=true use_wandb=false output_project=docs run_name=digits
	cp outputs/docs/mlp/digits/summary/planes.png docs/planes.png
	$(BIN)/python scripts/bench_data.py --markdown

notebook: setup ## write the demo notebook from its script
	$(BIN)/jupytext --quiet --to ipynb experiments/Hessian_and_landscape_plot_with_plasticity_loss/LLA_demo.py
