# `make repro` and `make test` need Python >= 3.11, git and make; everything else they fetch.
PYTHON ?= python3
PORT ?= 5000
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
# Slow tests run three at once on two cores, for they wait much; threads must not wait for each other.
TEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest --dist loadfile --no-loadscope-reorder
export PATH := $(BIN):$(PATH)
# Where it is set, each process compiles torch, Ray and MLflow anew: 3 s of its start.
export PYTHONDONTWRITEBYTECODE :=
# mkdocs-material's advertisement for its successor.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help env repro test test-fast lint docs bench fuzz ui lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED) ## build .venv from the lock, if it is absent or stale

# uv installs the locked stack; its own version stands in the lock as well.
$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ;]*' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

repro: $(INSTALLED) ## raw data to registered models: all stages of dvc.yaml that are out of date
	$(BIN)/dvc repro

test: $(INSTALLED) ## all tests but those of test-chaos
	$(TEST) -n 3 -m "not chaos"

test-chaos: $(INSTALLED) ## kills, lost nodes, full disks, whole stacks: before a release
	$(TEST) -n 2 -m chaos

test-fast: $(INSTALLED) ## the tests that start neither Ray nor servers and take no seconds
	$(TEST) -n 2 -m "not slow"

lint: $(INSTALLED) ## ruff (rules and format), mypy, and the documentation in strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

docs: $(INSTALLED) ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED) ## the ratios of tests/bench
	$(BIN)/pytest -s tests/bench/bench_*.py

fuzz: $(INSTALLED) ## 10,000 mutated files of each format through the readers
	$(BIN)/python -m tests.fuzz.run --count 10000

ui: $(INSTALLED) ## compare runs and models in the browser
	@$(BIN)/python -c "from pathlib import Path; from heartseg.tracking.moved_store import follow_move; print(follow_move(Path('mlflow.db').resolve()) or '', end='')"
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port $(PORT)

lock: $(INSTALLED) ## pin the whole stack anew
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --all-extras --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --output-file requirements.lock

clean: ## remove what the pipeline and the tests made, not the data
	rm -rf runs results site .pytest_cache .mypy_cache .ruff_cache
