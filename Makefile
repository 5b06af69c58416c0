# Needs make and Python 3.11 or newer; everything else is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults bench check fix stubs constraints clean venv

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(READY) ## Install the pinned tools and both distributions into .venv
	@:

demo: $(READY) ## Watch an agent get, use and lose credentials, on embedded servers
	@$(BIN)/broker demo

test: $(READY) ## Run all tests, and require full coverage where decisions are made
	@rm -f .coverage.json; status=0; \
	$(BIN)/pytest -m 'not long' --numprocesses 3 --dist worksteal --cov --cov-report=json:.coverage.json --cov-report= || status=1; \
	$(BIN)/python tools/coverage_gate.py .coverage.json || status=1; \
	exit $$status

faults: $(READY) ## Kill, cut off, overload and outlive: the tests that take minutes
	@$(BIN)/pytest -m long --numprocesses 3 --dist worksteal --timeout 900

# A goal that is missed (1) is shown in the table; a part that failed or a wrong reply fails the target.
bench: $(READY) ## Measure issuing against logins to Vault on real servers: minutes on a machine left alone
	@$(BIN)/python -m tests.bench || [ $$? -eq 1 ]

check: $(READY) ## Check format, lint, types, import contracts, protos, stubs and pins
	@$(BIN)/python tools/check.py

fix: $(READY) ## Format everything and repair what can be repaired automatically
	@$(BIN)/ruff check --quiet --fix --exit-zero
	@$(BIN)/ruff format --quiet
	@$(BIN)/buf format --write protos

stubs: $(READY) ## Generate the client's stubs from protos/
	@$(BIN)/python tools/generate_stubs.py

# Pins that still fit are kept; `make constraints UV_OPTIONS=--upgrade` takes the newest of all.
constraints: $(READY) ## Resolve the requirements into constraints.txt
	@$(BIN)/python tools/constraints.py compile $(UV_OPTIONS)

clean: ## Remove everything that was made here, .venv included
	@rm -rf $(VENV) dist build .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml clients/python/pyproject.toml constraints.txt tools/make_venv.sh
	@sh tools/make_venv.sh $(VENV)
	@touch $@
