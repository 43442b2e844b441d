# Everything here sets itself up first (tools/setup.sh); the second time that costs a tenth of a second.
# Variables are handed to the scripts in the environment, so that paths with spaces survive.

.DEFAULT_GOAL := help
.PHONY: help split test test-full test-properties test-zoo lint docs bench bench-plan setup clean
MAKEFLAGS += --no-print-directory

export MODEL BUDGET SEGMENTS CALIBRATION OUT ARGS PYTHON TIMES

PY := .venv/bin/python

help: ## show this
	@echo "make TARGET [VARIABLE=value ...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-15s %s\n' "$$name" "$$text"; done
	@echo
	@echo "make split MODEL=resnet101                      a recipe of models/: $$(cd models && echo *.toml | sed 's/\.toml//g')"
	@echo "make split MODEL=my.onnx CALIBRATION=photos     a file, with pictures or a .npy/.npz to calibrate with"
	@echo "  BUDGET=7MiB (default) or SEGMENTS=4, OUT=out/NAME, ARGS='--per-tensor ...' (graphcut split --help)"
	@echo "  PYTHON=/path/to/python3.12 sets up with that one"

split: ## split MODEL into segments that fit, and verify them
	@sh tools/split.sh

test: lint ## lint, then the tests that need no TensorFlow
	@$(PY) -m pytest -q

test-full: lint ## all tests: Keras recipes (2 GB more are installed) and the whole ResNet101 job
	@sh tools/setup.sh dev keras cluster
	@$(PY) -m pytest -q -m ""

test-properties: ## the properties only, with TIMES (20) as many random examples as in `make test`
	@sh tools/setup.sh dev
	@$(PY) -m pytest -q -m "hypothesis and not torch and not keras" --timeout 0 --examples-times "$${TIMES:-20}" $(ARGS)

test-zoo: ## every architecture of ../shared/zoo at 2, 4 and 7 MiB, as a table
	@sh tools/setup.sh dev
	@$(PY) -m pytest -q -m zoo

lint: ## ruff and mypy
	@sh tools/setup.sh dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: ## the documentation site, in build/site; a link that leads nowhere fails
	@sh tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: ## planning and the ResNet101 job against plain recipes, side by side (needs the keras extra)
	@sh tools/setup.sh keras
	@$(PY) -m tools.planning_time
	@$(PY) tools/bench.py $(ARGS)

bench-plan: ## time and memory of planning for 1,000, 10,000 and 100,000 nodes
	@sh tools/setup.sh dev
	@$(PY) tools/bench_plan.py

setup: ## only set up (also for the tests)
	@sh tools/setup.sh dev

clean: ## remove results and caches; the environment stays (.venv)
	@rm -rf out build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find graphcut tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
