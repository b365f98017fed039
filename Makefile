# Robot Dispatch. Every DISPATCH_* setting can be given in the environment: DISPATCH_LADDER="1m=1,5m=2,30m=3" make up
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Every process of a stack or a test run would compile every module of ours again: three seconds instead of one.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
LAUNCH := $(PYTHON) -m launcher
SYNCED := .venv/.synced
SCRIPTS := .ci/run $(shell find scripts launcher deploy bench -name '*.sh' 2>/dev/null)

# Words for pytest, as in: make test ARGS="-k ladder"
ARGS ?=
# Six processes on two cores, because most tests wait most of the time; a file's tests share what they start. In their
# order: the longest files first, unit tests fill the end.
# PARALLEL= runs them one by one.
PARALLEL ?= -n 6 --dist loadfile --no-loadscope-reorder

.PHONY: help setup servers-installed promtool-installed helm-installed chromium-installed systemd-analyze-installed demo up down restart status bench bench-long bench-smoke bench-setup \
	test test-unit test-integration test-deploy test-system test-faults test-rabbitmq4 chaos check lint types imports fmt docs dist sbom audit house clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SYNCED) servers-installed ## Python packages into .venv, RabbitMQ and Redis where root and apt-get are there

$(SYNCED): pyproject.toml uv.lock scripts/setup-python.sh scripts/uv.sh
	@scripts/setup-python.sh
	@touch $@

servers-installed:
	@launcher/setup-servers.sh

promtool-installed: # what tests of the alert rules and dashboards need, and nothing else does
	@scripts/setup-promtool.sh

helm-installed: # what tests of the Helm chart need, and nothing else does
	@scripts/setup-helm.sh

systemd-analyze-installed: # what tests of the systemd units need, and nothing else does
	@scripts/setup-systemd-analyze.sh

chromium-installed: # the browser in which tests of the console open its pages
	@scripts/setup-chromium.sh

demo: setup ## the whole system and one task's way through it, on a compressed ladder
	@$(PYTHON) -m examples.demo

up: setup ## start everything that is not running yet: RabbitMQ, Redis, gateway, worker, Flower, simulator
	@$(LAUNCH) up

down: $(SYNCED) ## stop everything, leave nothing running
	@$(LAUNCH) down

restart: $(SYNCED) ## restart gateway, worker and Flower with the code as it is now
	@$(LAUNCH) restart

status: $(SYNCED) ## what runs, where, and how often it was restarted
	@$(LAUNCH) status || true

test: setup promtool-installed helm-installed systemd-analyze-installed chromium-installed ## every test, on real servers of their own
	$(PYTEST) $(PARALLEL) $(ARGS)

test-unit: $(SYNCED) ## tests that touch no network
	$(PYTEST) tests/unit $(PARALLEL) $(ARGS)

test-integration: setup chromium-installed ## tests on a real RabbitMQ and Redis
	$(PYTEST) tests/integration $(PARALLEL) $(ARGS)

test-deploy: setup promtool-installed helm-installed systemd-analyze-installed ## the compose file, the image, the Helm chart, units, alerts and dashboards
	$(PYTEST) tests/deploy $(PARALLEL) $(ARGS)

test-system: setup ## tests of real processes from outside
	$(PYTEST) tests/system $(PARALLEL) $(ARGS)

test-faults: setup ## tests that kill, cut and fill
	$(PYTEST) tests/faults $(PARALLEL) $(ARGS)

test-rabbitmq4: setup promtool-installed helm-installed systemd-analyze-installed chromium-installed ## deploy, integration and fault tests on RabbitMQ 4.3, brought from Debian packages into .run/rabbitmq4
	@scripts/get-rabbitmq4.sh .run/rabbitmq4
	source .run/rabbitmq4/env && $(PYTEST) tests/deploy tests/integration tests/faults $(PARALLEL) $(ARGS)

chaos: setup ## break a system of its own and see what it keeps: make chaos DURATION=120 SEED=7
	@cd tests && ../$(PYTHON) -m support.chaos --seed $(or $(SEED),7) --duration $(or $(DURATION),60) --clients $(or $(CLIENTS),6) \
		--rate $(or $(RATE),20) $(if $(CALM),--calm) $(if $(POOL),--pool $(POOL)) --out ../.run/chaos $(ARGS)

bench: setup bench-setup ## every benchmark, beside FastAPI, Celery and dramatiq, on servers of its own; 15 minutes
	$(PYTHON) -m bench all $(ARGS)
	$(PYTHON) -m bench report

bench-long: setup bench-setup ## the same with 1,000,000 waiting tasks and three minutes of the load test
	$(PYTHON) -m bench all --long $(ARGS)
	$(PYTHON) -m bench report

bench-smoke: setup ## the CPU of a task beside stock Celery's; fails when twice as dear as recorded
	$(PYTHON) -m bench smoke $(ARGS)

bench-setup: # what `make bench` measures beside ours, in an environment of its own, and wrk
	@scripts/setup-bench.sh

check: lint types imports docs bench-smoke test ## everything that CI runs

lint: $(SYNCED) helm-installed ## style, spelling, shell scripts, schemas, the Helm chart, documentation
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/codespell
	.venv/bin/shellcheck $(SCRIPTS)
	.venv/bin/hadolint Dockerfile
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(or $(HELM),.run/helm/helm) lint --strict --quiet deploy/helm/robot-dispatch
	$(PYTHON) -m tools.docs
	$(PYTHON) -m tools.versions

types: $(SYNCED) ## mypy, strict
	.venv/bin/mypy

imports: $(SYNCED) ## who may import whom
	.venv/bin/lint-imports

fmt: $(SYNCED) ## format and mend what can be mended
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format

docs: ## the documentation as a site, into dist/site; a warning is an error
	@scripts/docs.sh

dist: $(SYNCED) ## wheel and sdist of robot-dispatch and of its client, with their digests, into dist/
	@PYTHON=$(PYTHON) scripts/dist.sh

sbom: ## a bill of materials (CycloneDX) and the packages' hashes into dist/
	@scripts/sbom.sh

audit: ## known vulnerabilities of the locked packages (asks osv.dev); exit 2: nothing was checked
	@scripts/audit.sh $(ARGS)

house: $(SYNCED) ## figures of the tree: folders, arrows, lengths, words
	@$(PYTHON) -m tools.house

clean: ## stop everything; delete data, logs and caches, but not .venv
	@if [ -x $(PYTHON) ]; then $(LAUNCH) down; fi
	rm -rf .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
