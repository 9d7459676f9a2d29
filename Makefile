.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml constraints.lock
	@echo "installing the locked dependencies into $(VENV) (about 3 GB, a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.lock -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready  ## environment with the locked dependencies; then .venv/bin/pre-commit install

demo: setup  ## the whole line on real data, to a promoted model answering a request
	@$(BIN)/rankline demo

test: setup  ## style, types, and every test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder  # a thread each; a worker in four waits

slow: setup  ## the tests that `test` leaves out: whole runs that are killed, starved and cut off; an hour and more
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

hooks: setup  ## what pre-commit looks at before a commit, on all files
	@$(BIN)/pre-commit run --all-files

reference:  ## renew docs/reference.md from the code
	@$(BIN)/python -m docs.tools.reference

docs: setup  ## the documentation site, every link checked, into build/site
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict  # with --quiet it would count no warning
	@echo "build/site/index.html"

BASE ?= python:3.11-slim
BUILD ?=
images: setup  ## the images built, and smoke run in them (a Docker engine, 15 GB; BASE=… pins, BUILD="--network host")
	@$(BIN)/rankline build all --base $(BASE) $(BUILD)
	@RANKLINE_NEEDS_IMAGES=1 $(BIN)/python -m pytest -q tests/pipelines/runs/test_containers.py

lock: setup  ## renew constraints.lock from pyproject.toml
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate \
		--no-emit-package rankline -o constraints.lock

golden:  ## renew the compiled flows the tests compare with, and the server's OpenAPI file
	@$(BIN)/python -m tests.pipelines.golden
	@$(BIN)/python -m serving.openapi

clean:  ## forget caches and build leftovers; the workspace .rankline and the images stay
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup demo test slow hooks reference docs images lock golden clean
