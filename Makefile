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
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z0-9_-]+:.*## / {printf "  \033[36m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# The transformers that many still use, for the tests that load exports with it; it shares torch and all else with $(VENV).
TRANSFORMERS_4 := $(CACHE)/transformers-4

.PHONY: transformers-4
transformers-4: $(TRANSFORMERS_4)/.stamp ## Bring an older transformers for the tests of exports into the user's cache folder; say where
	@echo $(TRANSFORMERS_4)

$(TRANSFORMERS_4)/.stamp: requirements/transformers-4.txt $(VENV)/bin/uv
	@rm -rf $(TRANSFORMERS_4)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target $(TRANSFORMERS_4) -r requirements/transformers-4.txt
	@touch $@

COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(ARGS)

.PHONY: requirements
requirements: $(VENV)/bin/uv ## Compile requirements/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	echo uv | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/uv.txt
	$(COMPILE) --extra operator --extra trainer --extra cli --extra dev -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt --extra operator -o requirements/operator.txt
	$(COMPILE) -c requirements/dev.txt --extra operator --extra test -o requirements/operator-test.txt
	$(COMPILE) -c requirements/dev.txt --extra trainer -o requirements/trainer.txt
	echo torch | $(BIN)/uv pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt -o requirements/torch.txt
	$(COMPILE) -c requirements/dev.txt --extra cli -o requirements/cli.txt
	printf 'transformers<5\nhuggingface-hub<1\ntokenizers<0.23\n' | $(BIN)/uv pip compile - --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/transformers-4.txt

# ---------------------------------------------------------------- checks

.PHONY: lint
lint: venv ## Style, types, import rules, generated files, chart
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check . ; exit 1; }
	$(BIN)/lint-imports --no-cache | tail -n 12
	$(BIN)/mypy
	@test ! -e operator/__init__.py -a ! -e trainer/__init__.py || { echo "operator/ and trainer/ are folders, never packages"; exit 1; }
	@$(MAKE) crds-check
	@if command -v helm >/dev/null; then helm lint --strict --quiet charts/finetune-operator; else echo "lint: no helm here, the chart was not linted"; fi

# Every branch of the contract and the planner is covered by their own tests: `make test` fails where one is not.
COVERED := tests/contract tests/job
WITHOUT_TORCH := $(COVERED) tests/operator
PROCESSES ?= 2 # that run the trainer's tests side by side, about 2 GiB each

.PHONY: test
test: venv venv-operator transformers-4 ## All tests that need no cluster; those of contract and operator run without torch
	@scripts/control-plane.sh --check || true
	.venv-operator/bin/python -m coverage run -m pytest -q $(COVERED) $(ARGS)
	.venv-operator/bin/python -m coverage report $(if $(ARGS),--fail-under=0)
	.venv-operator/bin/python -m pytest -q tests/operator $(ARGS)
	$(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile tests $(addprefix --ignore=,tests/e2e $(WITHOUT_TORCH)) $(ARGS)

.PHONY: test-apiserver
test-apiserver: venv-operator ## The tests on a real API server alone, of the version in KUBEBUILDER_ASSETS or `make control-plane`
	@scripts/control-plane.sh --check
	.venv-operator/bin/python -m pytest -q -m apiserver $(WITHOUT_TORCH) $(ARGS)

.PHONY: control-plane
control-plane: ## Bring kube-apiserver, etcd and kubectl for the API-server tests into the user's cache folder
	scripts/control-plane.sh

.PHONY: matrix
matrix: venv ## Every task with every family by every method, on tiny models (long; `make test` does a few of them)
	FULL=1 $(BIN)/python -m pytest -q tests/matrix $(ARGS)

# ---------------------------------------------------------------- generated files

.PHONY: crds
crds: venv ## Generate the resource definition (also into the chart) and docs/reference.md from the models
	$(BIN)/python crds/generate.py

.PHONY: crds-check
crds-check: venv ## Fail when a committed generated file differs from the models
	$(BIN)/python crds/generate.py --check

# ---------------------------------------------------------------- images and cluster

OPERATOR_IMAGE ?= localhost/finetune-operator:dev
TRAINER_IMAGE ?= localhost/finetune-trainer:dev
KIND_CLUSTER ?= finetune
# How an image gets built and onto the nodes: called with `-t NAME --target STAGE .`, then with NAME. With IMAGE_BUILD given
# and IMAGE_LOAD empty the first command does both.
IMAGE_BUILD ?= docker build
IMAGE_LOAD ?= $(if $(filter docker build,$(IMAGE_BUILD)),kind load docker-image --name $(KIND_CLUSTER))
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

.PHONY: images
images: ## Build both images and load them onto the nodes (kind, or IMAGE_BUILD and IMAGE_LOAD)
	$(IMAGE_BUILD) -t $(OPERATOR_IMAGE) --build-arg REVISION=$(REVISION) --target operator .
	$(if $(strip $(IMAGE_LOAD)),$(IMAGE_LOAD) $(OPERATOR_IMAGE))
	$(IMAGE_BUILD) -t $(TRAINER_IMAGE) --build-arg REVISION=$(REVISION) --target trainer .
	$(if $(strip $(IMAGE_LOAD)),$(IMAGE_LOAD) $(TRAINER_IMAGE))

tag = $(lastword $(subst :, ,$(1)))
repository = $(patsubst %:$(call tag,$(1)),%,$(1))

.PHONY: install
install: ## Install or upgrade the chart with these images on the cluster of KUBECONFIG
	helm upgrade --install finetune charts/finetune-operator -n finetune-system --create-namespace --take-ownership --wait --timeout 120s \
	  --set image.repository=$(call repository,$(OPERATOR_IMAGE)) --set image.tag=$(call tag,$(OPERATOR_IMAGE)) \
	  --set trainer.image.repository=$(call repository,$(TRAINER_IMAGE)) --set trainer.image.tag=$(call tag,$(TRAINER_IMAGE)) $(ARGS)

.PHONY: kind
kind: ## Make a kind cluster for `make images e2e`
	kind get clusters | grep -qx $(KIND_CLUSTER) || kind create cluster --name $(KIND_CLUSTER) --wait 120s

# Faults of the cluster under test, as commands; on kind they are these. Without them the tests of those faults are skipped;
# so are, without E2E_NODE, E2E_LOSE_NODE, E2E_BRING_NODE and E2E_KUEUE, those of a lost node and of Kueue.
KIND_NODE := $(if $(filter kind-$(KIND_CLUSTER),$(shell kubectl config current-context 2>/dev/null)),$(KIND_CLUSTER)-control-plane)
export E2E_RESTART_APISERVER ?= $(if $(KIND_NODE),docker exec $(KIND_NODE) pkill -9 kube-apiserver && sleep 5)
export E2E_RESTART_KUBELET ?= $(if $(KIND_NODE),docker exec $(KIND_NODE) systemctl restart kubelet)

.PHONY: e2e
e2e: venv ## End to end on the cluster of KUBECONFIG: images, chart, storage, jobs, faults (SHORT=1 for less, FULL=1 for more)
	@kubectl get nodes >/dev/null || { echo "e2e: no cluster behind KUBECONFIG; with Docker and kind: make kind e2e"; exit 1; }
	@test -n "$(SKIP_IMAGES)" || $(MAKE) images
	OPERATOR_IMAGE=$(OPERATOR_IMAGE) TRAINER_IMAGE=$(TRAINER_IMAGE) FULL=$(FULL) $(BIN)/python -m pytest -m "e2e$(if $(SHORT), and not nightly)" tests/e2e $(ARGS)

# ---------------------------------------------------------------- show and measure

.PHONY: demo
demo: venv ## Tune MiniLM on real mails, streamed from a local S3 server, to a report (about ten minutes)
	$(BIN)/python -m examples.demo

.PHONY: bench
bench: venv ## Measure and print one JSON line: NAME=footprint | start_up | report_lag | trainer_baseline | folds | few_shot | frozen_trunk
	@test -n "$(NAME)" || { echo "say which: make bench NAME=…; there are: $$(ls benchmarks/*.py | xargs -n1 basename | sed 's/\.py$$//' | tr '\n' ' ')"; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py $(ARGS)

.PHONY: clean
clean: ## Remove environments, caches and generated test output
	rm -rf .venv .venv-operator .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
