# Every task of the project. `make help` lists them. Targets stand alone: they need Python 3.11, and only some of them
# Docker and kind (or the commands given in IMAGE_BUILD and IMAGE_LOAD), helm, kubectl or go.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/finetune-operator
ARGS ?=
NAME ?=

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environments

.PHONY: venv
venv: $(VENV)/.stamp ## Make .venv with everything, hash-pinned (instant the second time)

$(VENV)/bin/uv: requirements/uv.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.stamp: requirements/dev.txt pyproject.toml $(VENV)/bin/uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: venv-operator
venv-operator: .venv-operator/.stamp ## Make .venv-operator: what the operator and its tests need, without torch

.venv-operator/.stamp: requirements/operator-test.txt pyproject.toml $(VENV)/bin/uv
	@test -x .venv-operator/bin/python || $(PYTHON) -m venv --without-pip .venv-operator
	VIRTUAL_ENV=$(abspath .venv-operator) $(BIN)/uv pip install --quiet --require-hashes -r requirements/operator-test.txt
	VIRTUAL_ENV=$(abspath .venv-operator) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(ARGS)

.PHONY: requirements
requirements: $(VENV)/bin/uv ## Compile requirements/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	echo uv | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/uv.txt
	$(COMPILE) --extra operator --extra trainer --extra cli --extra dev -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt --extra operator -o requirements/operator.txt
	$(COMPILE) -c requirements/dev.txt --extra operator --extra test -o requirements/operator-test.txt
	$(COMPILE) -c requirements/dev.txt --extra trainer -o requirements/trainer.txt
	$(COMPILE) -c requirements/dev.txt --extra cli -o requirements/cli.txt
