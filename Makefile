# The public verbs. Each sets up what it needs in .venv and leaves nothing running, except `stack` (end it: `make stack-down`).
PYTHON ?= /usr/bin/python3
BIN := .venv/bin

# Python keeps what it has compiled: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check unit java clients test demo demo-distributed serve stack stack-down bench faults soak clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into .venv" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest tests/unit

# The servers that no wheel carries: Kafka runs on Java, and is fetched by Maven.
java:
	@command -v java >/dev/null && command -v mvn >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openjdk-17-jre-headless maven >/dev/null; } \
		|| { echo "the tests run a real Kafka: apt-get install openjdk-17-jre-headless maven" >&2; exit 1; }

# Clients for Node are run unmodified, and curl.
clients:
	@command -v node >/dev/null && command -v npm >/dev/null && command -v curl >/dev/null || { test "$$(id -u)" = 0 \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm curl >/dev/null; } \
		|| { echo "the tests run real clients: apt-get install nodejs npm curl" >&2; exit 1; }

test: check java clients
	$(BIN)/python tests/run.py

demo: setup
	@$(BIN)/tollhouse demo

demo-distributed: setup java
	@$(BIN)/tollhouse demo --distributed

serve: setup
	$(BIN)/tollhouse serve

stack: setup
	$(BIN)/tollhouse stack up

stack-down: setup
	$(BIN)/tollhouse stack down

bench: setup
	$(BIN)/python -m tests.bench

faults: setup
	$(BIN)/python -m pytest tests/faults tests/workers tests/distributed tests/attack -m "full or not full" --full

soak: setup
	$(BIN)/python -m pytest tests/soak -m full --full -s

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
