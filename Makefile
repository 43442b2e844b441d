# Every target first sets up what it needs (tools/setup.sh). If nothing is to be done, that takes a tenth of a second.
# Variables are passed to the scripts in the environment, so that paths may contain spaces.

.DEFAULT_GOAL := help
.PHONY: help split test test-full test-properties test-zoo coverage lint docs bench bench-plan lock dist setup clean fuzz crash
MAKEFLAGS += --no-print-directory

export MODEL BUDGET SEGMENTS CALIBRATION OUT ARGS PYTHON TIMES

PY := .venv/bin/python
# Use all processors. An idle worker takes tests from the end of another worker's queue, so that the tests of one file, which
# share fixtures, mostly stay together.
PARALLEL := -n logical --dist worksteal

help: ## show this help
	@echo "make TARGET [VARIABLE=value ...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-15s %s\n' "$$name" "$$text"; done
	@echo
	@echo "make split MODEL=resnet101                      a recipe of models/: $$(cd models && echo *.toml | sed 's/\.toml//g')"
	@echo "make split MODEL=my.onnx CALIBRATION=photos     a file, with pictures or a .npy/.npz to calibrate with"
	@echo "  BUDGET=7MiB (default) or SEGMENTS=4, OUT=out/NAME, ARGS='--per-tensor ...' (graphcut split --help)"
	@echo "  PYTHON=/path/to/python3.12 selects the Python for the environment"

split: ## split MODEL into segments that fit the budget, and verify them
	@sh tools/split.sh

test: lint ## lint, then run the tests that do not need TensorFlow
	@$(PY) -m pytest -q $(PARALLEL)

coverage: ## run the tests of `make test` and measure line coverage (build/coverage.xml)
	@sh tools/setup.sh dev
	@mkdir -p build
	@$(PY) -m pytest -q $(PARALLEL) --cov --cov-report=term:skip-covered --cov-report=xml

test-full: lint ## run all tests, including Keras recipes (installs 2 GB more) and the whole ResNet101 job
	@sh tools/setup.sh dev keras cluster
	@$(PY) -m pytest -q $(PARALLEL) -m ""

test-properties: ## run only the property tests, with TIMES (default: 20) times as many examples as `make test`
	@sh tools/setup.sh dev
	@$(PY) -m pytest -q -m "hypothesis and not torch and not keras" --timeout 0 --examples-times "$${TIMES:-20}" $(ARGS)

test-zoo: ## split every architecture of ../shared/zoo at 2, 4 and 7 MiB, and print a table
	@sh tools/setup.sh dev
	@$(PY) -m pytest -q -m zoo

fuzz: ## run the command line on thousands of mutated files of every kind (ARGS='--seconds 60 --seed 2')
	@sh tools/setup.sh dev
	@$(PY) -m tests.fuzz.campaign $(ARGS)

crash: ## kill graphcut 200 times at system calls while it writes results (ARGS='--count 50'); needs strace
	@sh tools/setup.sh dev
	@$(PY) -m tests.crash.kills $(ARGS)

lint: ## run ruff and mypy
	@sh tools/setup.sh dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: ## build the documentation in build/site; fail on broken links
	@sh tools/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

bench: ## compare planning and the ResNet101 job with plain recipes (installs the keras extra)
	@sh tools/setup.sh keras
	@$(PY) -m tools.planning_time
	@$(PY) tools/bench.py $(ARGS)

bench-plan: ## measure time and memory of planning for 1,000, 10,000 and 100,000 nodes
	@sh tools/setup.sh dev
	@$(PY) tools/bench_plan.py

lock: ## update the pinned development environment in constraints.txt
	@sh tools/setup.sh dev
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.12 --upgrade --extra dev --extra docs --extra keras --extra cluster --no-annotate --custom-compile-command "make lock" --output-file constraints.txt pyproject.toml

dist: ## build the wheel, the source distribution and the release notes (dist/); TAG=v0.1.0 checks the version
	@sh tools/setup.sh dev
	@rm -rf dist
	@$(PY) -m hatchling build --directory dist >/dev/null
	@$(PY) tools/release_notes.py $(TAG) > dist/notes.md
	@ls dist

setup: ## only set up the environment (also for the tests)
	@sh tools/setup.sh dev

clean: ## remove results and caches, but keep the environment (.venv)
	@rm -rf out build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find graphcut tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
