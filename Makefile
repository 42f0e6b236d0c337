# All that is done here, for people and for .ci/run alike. The first target that needs it makes .venv by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The first Python of 3.11 or newer; PYTHON=/path/to/python chooses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3 python3.12 python3.13 python3.14; do \
    if $$name -c '$(NEW_ENOUGH)' 2>/dev/null; then command -v $$name; break; fi; done)
endif

POSTGRES_15 := /usr/lib/postgresql/15/bin/postgres
# Many tests wait for processes: three of them keep two cores busy. A process that crashed is not replaced, and a run that
# hangs all the same says where and ends: both have failed anyhow.
MINUTES_MAX := 30
TIMED := $(if $(shell command -v timeout),timeout --foreground --verbose --signal=INT --kill-after=60 $(MINUTES_MAX)m)
PYTEST := $(TIMED) $(BIN)/python -m pytest -q -n 3 --dist loadgroup --max-worker-restart=0
# What says something new with another Postgres, another way to be woken, or more or less code kept in memory.
WITH_WORKERS := $(addprefix tests/engine/test_,branches.py cancellation.py children.py client.py context.py crashes.py deploys.py \
    failures.py patches.py scenarios.py steps.py transactional_steps.py transactions.py worker.py)
WITH_WAITING := $(addprefix tests/engine/test_,branches.py cancellation.py children.py patches.py scenarios.py)
ON_EVERY_POSTGRES := tests/sql tests/api $(WITH_WORKERS) $(wildcard tests/engine/test_schema tests/engine/test_dev*.py \
    tests/engine/test_launcher*.py tests/engine/test_engine_simulation.py tests/engine/test_testing_crashes.py \
    tests/engine/test_vacuum.py)
SOURCES := $(wildcard engine api migrations examples bench tests tools)

.PHONY: help demo dev test check simulate format clean system constraints
.PHONY: check-format check-lint check-types check-layers check-migrations check-functions

help: ## this list
	@sed -nE 's/^([a-z][a-z-]*):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

demo: $(READY) ## the whole story: a workflow waits for a person, its worker is killed, another one finishes
	$(BIN)/python examples/demo.py

dev: $(READY) ## Postgres, API and a worker for examples/approval.py, until Ctrl-C
	$(BIN)/troth dev examples/approval.py

test: $(READY) system ## every test but the long proofs, on Postgres 15 (or on the embedded one where that is missing)
	@if [ -x $(POSTGRES_15) ]; then \
	    echo "== every test, on Postgres 15"; \
	    TROTH_TEST_POSTGRES=15 $(PYTEST) --ignore=tests/proof; \
	elif [ "$${CI:-}" = true ]; then \
	    echo "make test: $(POSTGRES_15) is missing, and CI skips nothing" >&2; exit 1; \
	else \
	    echo "== every test, on the embedded Postgres (skipped: Postgres 15, which is not installed)"; \
	    TROTH_TEST_POSTGRES=embedded $(PYTEST) --ignore=tests/proof; \
	fi

# --- proofs: all of them, bounded, in `make proof`; each by itself as long as one likes (docs/reliability.md) ---

.PHONY: proof invariants plans model histories protocol races mutants mutate-core pooled chaos failover
proof: $(READY) system ## that nothing is lost, doubled or wedged; and what needs a Postgres again, on another one and otherwise
	@$(PYTHON) tools/system.py proof
	@echo "== the proofs"
	TROTH_TEST_POSTGRES=15 $(PYTEST) tests/proof
	@echo "== chaos; failover, and what needs no machine of its own, beside it"
	TROTH_TEST_POSTGRES=15 $(MAKE) --jobs=3 --output-sync=target chaos failover aside LAGGING=2
	@echo "== what does not depend on the machine"
	$(MAKE) bench-smoke
	@echo "== on the embedded Postgres, with notifications off, by workers that keep no suspended code"
	TROTH_TEST_POSTGRES=embedded TROTH_TEST_NOTIFY=off TROTH_TEST_KEEP=0 TROTH_TEST_CHANGES=none $(PYTEST) $(ON_EVERY_POSTGRES)

.PHONY: aside
aside: $(READY) system
	@echo "== workers that keep the code of one suspended workflow"
	TROTH_TEST_KEEP=1 $(PYTEST) $(WITH_WAITING)
	@echo "== through a pooler"
	TROTH_TEST_POSTGRES=15 TROTH_TEST_POOLED=on $(PYTEST) tests/engine/test_transactional_steps.py

invariants: $(READY) system ## every test of the functions with each row's changes judged, and how often each invariant was met
	TROTH_TEST_POSTGRES=15 $(PYTEST) tests/sql tests/proof/invariants tests/proof/privileges

histories: $(READY) system ## clients side by side over SQL and HTTP, their answers checked: make histories HISTORIES=4000
	TROTH_HISTORIES=$(or $(HISTORIES),4000) $(BIN)/python -m pytest -q -n 2 tests/proof/histories

model: $(READY) system ## the functions against an oracle in Python: make model RUNS=20000 STEPS=100 PROCESSES=2 SEED=0
	$(BIN)/python -m tests.proof.model $(or $(RUNS),20000) $(or $(STEPS),100) $(or $(PROCESSES),$(shell nproc)) $(or $(SEED),0)

protocol: $(READY) ## the protocol's model, every interleaving: make protocol FAULTS=3
	$(BIN)/python -m tests.proof.protocol $(FAULTS)

# A pair of calls in the middle of each other: so many collisions of the critical ones, a hundredth as many rounds of every pair.
races: $(READY) system ## every pair of calls at once: make races ROUNDS=1000
	@report=$$(mktemp); trap 'rm -f "$$report"' EXIT; \
	TROTH_TEST_POSTGRES=15 TROTH_RACES_ROUNDS=$(or $(ROUNDS),1000) TROTH_RACES_REPORT=$$report \
	    $(BIN)/python -m pytest -q -n 2 -o faulthandler_timeout=0 tests/proof/races; sort "$$report"

mutants: $(READY) system ## every mutant of sql/ against the wide suite (python -m tests.proof.mutants takes their names)
	TROTH_TEST_POSTGRES=15 $(BIN)/python -m tests.proof.mutants --wide --part=1/2 & first=$$!; \
	TROTH_TEST_POSTGRES=15 $(BIN)/python -m tests.proof.mutants --wide --part=2/2; second=$$?; \
	wait $$first && exit $$second

mutate-core: $(READY) ## what the core's tests do not notice: make mutate-core MUTANTS=60 SEED=0 (MUTANTS=0: all)
	nice $(BIN)/python -m tests.proof.mutation $(or $(MUTANTS),60) $(or $(SEED),0)

pooled: $(READY) system ## the workers' tests through pgbouncer in transaction mode, with LISTEN past it
	@$(PYTHON) tools/system.py proof
	TROTH_TEST_POSTGRES=15 TROTH_TEST_POOLED=on $(PYTEST) $(WITH_WORKERS)

plans: $(READY) ## what each call reads beside a million promises, whatever the planner knows (tests/proof/plans), on both Postgres
	$(BIN)/python -m pytest -q -n 0 tests/proof/plans

chaos: $(READY) ## everything is killed at random, and nothing may be lost: make chaos MINUTES=60
	$(BIN)/python -m tests.proof.chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED))

failover: $(READY) ## a standby is promoted under load, and nothing may be missing: make failover RUNS=10 LAGGING=5
	$(BIN)/python -m tests.proof.failover --runs $(or $(RUNS),10) --lagging $(or $(LAGGING),5)

# --- checks ---

check: check-format check-lint check-types check-layers check-migrations check-functions ## format, lint, types, layers, tables, functions

check-format: $(READY)
	$(BIN)/ruff format --check .

check-lint: $(READY)
	$(BIN)/ruff check .

check-types: $(READY)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/pyright --pythonpath $(BIN)/python

check-layers: $(READY)
	$(BIN)/lint-imports --no-logo

check-migrations: $(READY)
	$(BIN)/python tools/squawk_migrations.py

check-functions: $(READY) system
	$(BIN)/python tools/check_plpgsql.py

.PHONY: bench bench-peers bench-smoke
bench: $(READY) bench-peers ## Troth, its peers and the floor at the same works; writes docs/benchmarks.md (BENCH="--quick")
	$(BIN)/python -m bench $(BENCH)

bench-peers: .bench/.ready

.bench/.ready: bench/peers.txt
	test -x .bench/bin/python || $(PYTHON) -m venv .bench
	.bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/peers.txt
	@touch $@

bench-smoke: $(READY) ## what does not depend on the machine: calls, commits, rows and HOT updates for each workflow
	$(BIN)/python -m bench.smoke --postgres 15

simulate: $(READY) ## random workflows, crashed and replayed: make simulate RUNS=1000000 SEED=0
	$(BIN)/python -m tests.core.simulation $(or $(RUNS),20000) $(or $(SEED),0)

format: $(READY) ## rewrite what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove what was built, and .venv (a running Postgres under .troth/ stays)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

system: ## install Postgres 15 and plpgsql_check where they are missing and may be installed
	@test -n "$(PYTHON)" || { echo "Troth needs Python 3.11 or newer, and found none on the PATH (or say PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) tools/system.py postgres

constraints: $(READY) ## write down the versions of .venv as those that everybody gets
	$(BIN)/python -m pip freeze --all --exclude troth --exclude setuptools > constraints.txt
	touch $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Troth needs Python 3.11 or newer, and found none on the PATH (or say PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) tools/system.py venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,testing]'
	@touch $@
