# `make run` installs what it needs and runs rayscope; `make test` passes the tests; `make install` is the set-up alone.
# Other words for rayscope: make run ARGS="up --for 30s --json". Another Python: make PYTHON=python3.12 install.
# What is said goes to stderr, so that `make run ARGS="flows --json"` prints JSON alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
ARGS ?= up
SAY := @printf 'make: %s\n' >&2
# What a set-up rests on: where it is, since a virtual environment cannot be moved, and what is to be installed.
PLACE := $(firstword $(shell pwd | cksum))
WANTED := $(PLACE) $(shell cat requirements.lock pyproject.toml | cksum)

# Said where the set-up alone is asked for; the other targets say what they do themselves.
UP_TO_DATE := $(if $(filter install,$(MAKECMDGOALS)),echo "make: $(VENV) holds what requirements.lock names" >&2,:)

.PHONY: run test test-cluster install setup lint types layers lock kube-binaries clean

run: install
	$(SAY) 'rayscope $(ARGS)'
	@exec $(BIN)/rayscope $(ARGS)

test: install
	$(SAY) 'running the tests'
	@exec $(BIN)/python -m pytest

# Several Ray nodes in network namespaces (root only), three minutes: not among the everyday tests.
test-cluster: install
	$(SAY) 'running the tests of several nodes'
	@exec $(BIN)/python -m pytest -m cluster tests/cluster

install:
	@if [ "$$(cat $(STAMP) 2>&1)" = "$(WANTED)" ] && $(BIN)/python -c '' 2>/dev/null; then $(UP_TO_DATE); else $(MAKE) --no-print-directory setup; fi

# A set-up that was cut short has no stamp: the next one begins anew, since a package may be there in part.
setup:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: there is no $(PYTHON); install it: apt-get install python3 python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$("$(PYTHON)" --version) is too old, 3.11 or newer is needed; say where one is: make PYTHON=python3.11 install" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make a virtual environment; install what is missing: apt-get install python3-venv" >&2; exit 1; }
	@if grep -qs '^$(PLACE) ' $(STAMP) && $(BIN)/python -c 'import pip' 2>/dev/null; then rm -f $(STAMP); else echo "make: making the virtual environment $(VENV)" >&2; "$(PYTHON)" -m venv --clear $(VENV); fi
	$(SAY) "installing $$(grep -c == requirements.lock) packages from requirements.lock (a minute or two the first time)"
	@$(PIP) --require-hashes --requirement requirements.lock || { echo "make: the packages could not be installed; is the package index reachable from here? (pip's own message is above; try again with: make install)" >&2; exit 1; }
	@$(PIP) --no-deps --no-build-isolation --editable .
	@printf '%s\n' "$(WANTED)" >$(STAMP)
	$(SAY) 'installed'

lint: install
	$(SAY) 'ruff'
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	$(SAY) 'mypy'
	@$(BIN)/mypy

layers: install
	$(SAY) 'import-linter'
	@$(BIN)/lint-imports

lock: install
	$(SAY) 'writing requirements.lock'
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --group dev pyproject.toml --output-file requirements.lock

# The real API server that tests/kubernetes start, into the user's cache, where it is not there yet; another Go: make GO=/path/to/go kube-binaries.
kube-binaries:
	@exec tests/kubernetes/build

clean:
	$(SAY) 'removing $(VENV)'
	@rm -rf $(VENV)
