# What a newcomer types. Needs only Python 3.11 or newer (with venv), Node 20 or newer with npm, and make.
# Everything it makes is inside this folder: .venv/ and node_modules/. A second run finds them there. Only as root, PostgreSQL's
# binaries are moreover copied once to /var/tmp, where the user that runs them can read them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

ARGS ?=
# Files of tests that run at once, each on servers of its own: most wait for blocks and servers more than they compute.
AT_ONCE ?= 3
PYTHON ?=
export UV_COMPILE_BYTECODE := 1
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PY := .venv/bin/python
AS_IN_PRODUCTION := ENVIRONMENT=production ALLOWED_HOSTS=market.example SECRET_KEY=0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRST \
	API_KEY_PEPPER=only-for-this-check-0123456789abcdef DATABASE_URL=postgres://nobody@127.0.0.1/none

.PHONY: help install demo dev test crashtest promises check prove mutate mutate-contract bench gas fix lock clean

help: ## This list
	@echo "Agent Market: agents hire and pay each other, the money waits in escrow."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Options of the commands go into ARGS, as in: make demo ARGS="--once --files 20"'

install: .venv/.ready node_modules/.ready ## Install everything that the commands below need, into this folder
	@:

demo: .venv/.ready node_modules/.ready ## Agents review real code and pay each other on a local chain (ARGS: --once --json --files N --path DIR)
	@$(PY) manage.py demo $(ARGS)

dev: .venv/.ready node_modules/.ready ## Keep the whole market running, and print how to call it (ARGS: --port N)
	@$(PY) manage.py dev $(ARGS)

test: .venv/.ready node_modules/.ready ## Run the tests on the real servers (ARGS: anything pytest takes)
	@$(PY) -m pytest -n $(AT_ONCE) --dist loadfile $(ARGS)

crashtest: .venv/.ready node_modules/.ready ## Kill workers and servers at named points, and check every payment (ARGS: --full --recovery --seed N --json)
	@$(PY) manage.py crashtest $(ARGS)

promises: .venv/.ready node_modules/.ready ## Prove what docs/PROMISES.md promises, line by line, on the real servers (ARGS: --json --write)
	@$(PY) -m tests.promises $(ARGS)

check: .venv/.ready node_modules/.ready ## Style, types, import law, migrations, artifacts, gas, settings, API schema, containers, locks
	.venv/bin/ruff check --quiet --output-format concise .
	.venv/bin/ruff format --quiet --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -W ignore manage.py makemigrations --check --dry-run
	$(PY) manage.py spectacular --validate --fail-on-warn --file /dev/null
	$(AS_IN_PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING
	$(PY) -m escrow.chain.compiler --check
	$(PY) -m benchmarks.gas --check
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	.venv/bin/compose-lint check --quiet --strict-config --fail-on medium --skip-suppressed docker-compose.yml
	.venv/bin/hadolint Dockerfile
	$(PY) .ci/locks.py
	$(PY) .ci/errors.py --check
	@echo "All checks passed."

prove: .venv/.ready .venv-proofs/.ready node_modules/.ready ## The contract's proofs at full depth, an hour or two (ARGS: walks halmos slither; RUNS=n: shorter walks)
	@$(PY) .ci/proofs/prove.py $(ARGS)

mutate: .venv/.ready node_modules/.ready ## Change the money code in one place at a time: a test must notice each (ARGS: ledger policy ...)
	@nice -n 15 $(PY) .ci/mutants/run.py $(ARGS)

mutate-contract: .venv/.ready .venv-proofs/.ready node_modules/.ready ## Plant known bugs in the contract: the proofs must find each (ARGS: names)
	@$(PY) .ci/proofs/mutate.py $(ARGS)

bench: .venv/.ready .venv-peers/.ready node_modules/.ready ## Measure, as ratios that travel between machines
	@$(PY) -m benchmarks $(ARGS)

gas: .venv/.ready node_modules/.ready ## Measure what the contract costs on chain, beside paying each payment (ARGS: --json --check --write --profile)
	@$(PY) -m benchmarks.gas $(ARGS)

fix: .venv/.ready ## Format, and fix what can be fixed by itself
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

lock: .venv/.ready ## Pin the requirements again, after a change in pyproject.toml
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml -o requirements.txt
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra dev pyproject.toml -o requirements-dev.txt

clean: ## Remove what was installed and made here
	rm -rf .venv .venv-proofs .venv-peers node_modules staticfiles .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis contracts/out contracts/cache run/mutants
	find escrow marketplace sdk examples tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.ready: requirements-dev.txt .ci/uv.txt .ci/install-python .ci/install-sdk
	@PYTHON="$(PYTHON)" sh .ci/install-python

.venv-proofs/.ready: .venv/.ready .ci/slither.txt .ci/halmos.txt .ci/install-proofs
	@sh .ci/install-proofs

.venv-peers/.ready: .venv/.ready .ci/peers.txt .ci/install-peers
	@sh .ci/install-peers

node_modules/.ready: package-lock.json package.json .ci/install-node
	@sh .ci/install-node
