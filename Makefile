.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml constraints.lock
	@echo "installing the locked dependencies into $(VENV) (about 7 GB from PyPI, several minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.lock -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready  ## .venv with the locked dependencies (PYTHON=python3.12 or 3.13 for another version)

demo: setup  ## the whole pipeline on real data, to a promoted model that answers a request
	@$(BIN)/rankline demo

# Hundreds of processes import the same modules: compile them once, also where bytecode is switched off, as in containers.
TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --dist loadfile
test: setup  ## style, types and the quick tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(TESTS) -n 3 --no-loadscope-reorder  # three on two cores: tests wait for processes

integration: setup  ## the tests of whole runs, trainings, servers and stores that `test` leaves out
	@$(TESTS) -n 3 --no-loadscope-reorder -m "integration and not slow"

slow: setup  ## the tests that both leave out: whole runs that are killed, starved and cut off (over an hour)
	@$(TESTS) -n 2 -m slow

hooks: setup  ## the pre-commit hooks on all files (.venv/bin/pre-commit install runs them before each commit)
	@$(BIN)/pre-commit run --all-files

reference:  ## renew docs/reference.md from the code
	@$(BIN)/python -m docs.tools.reference

docs: setup  ## the documentation site in build/site, with every link checked
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict  # with --quiet it counts no warnings
	@echo "build/site/index.html"

BASE ?= python:3.11-slim
BUILD ?=
images: setup  ## build the images and run the smoke recipe in them (Docker, 15 GB; BASE=… BUILD="--network host")
	@$(BIN)/rankline build all --base $(BASE) $(BUILD)
	@RANKLINE_NEEDS_IMAGES=1 $(BIN)/python -m pytest -q tests/pipelines/runs/test_containers.py

# One lock serves every version of Python. The last step fails where a pin does not resolve for one of them.
lock: setup  ## renew constraints.lock from pyproject.toml
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate \
		--no-emit-package rankline -o constraints.lock
	@for version in 3.12 3.13; do \
		$(BIN)/uv pip compile pyproject.toml --extra dev --python-version $$version -c constraints.lock --quiet \
			-o /dev/null || exit 1; done

golden:  ## renew the golden packages of the flows and the server's OpenAPI file
	@$(BIN)/python -m tests.pipelines.golden
	@$(BIN)/python -m serving.openapi

clean:  ## delete caches and build output; the workspace .rankline and the images stay
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup demo test integration slow hooks reference docs images lock golden clean
