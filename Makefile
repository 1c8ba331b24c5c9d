# The two commands: `make book` and `make test`. Both bring what they need into .venv and node_modules.
PYTHON ?= python3
# cpu, or gpu: the paper's size
PROFILE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SCRIPTS := $(if $(shell command -v npm),node_modules/.package-lock.json)

.NOTPARALLEL:
.PHONY: help book test unit lint format sync execute render pages serve lock clean

help:  ## what each target does
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

book: execute render  ## execute what has changed, render the book and say where it is

test: lint unit execute render pages  ## every check: lint, types, unit tests, all chapters, the pages in a browser

unit: $(INSTALLED)  ## the unit tests alone
	@echo "== unit tests"
	$(BIN)/python -m pytest -q -m "not browser"

lint: $(INSTALLED)  ## style, types, and that generated files are in step with their sources
	@echo "== lint"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m book.tools.sync --check

format: $(INSTALLED)  ## mend the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

sync: $(INSTALLED)  ## write notebooks, badges, setup cells and addresses from book/*.py and pyproject.toml
	$(BIN)/python -m book.tools.sync

execute: $(INSTALLED)  ## run the chapters that have changed
	@echo "== chapters"
	$(BIN)/python -m book.tools.sync --check
	$(BIN)/python -m book.tools.execute -p profile $(PROFILE)

render: $(INSTALLED) $(SCRIPTS)  ## make pages of the executed chapters
	@echo "== pages"
	$(BIN)/python -m book.tools.render --profile $(PROFILE)

pages: $(INSTALLED)  ## test the rendered pages in a browser
	@echo "== browser tests"
	$(BIN)/python -m book.tools.browser
	$(BIN)/python -m pytest -q -m browser

serve:  ## show the rendered book at http://localhost:8000
	$(PYTHON) -m http.server --bind localhost --directory _build/html 8000

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The scripts a reader's browser needs. Without npm the pages load the same versions from a CDN.
node_modules/.package-lock.json: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

lock:  ## choose exact versions anew, for every platform; needs uv
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-annotate --no-header --quiet --output-file requirements.lock

clean:  ## remove everything that make made
	rm -rf $(VENV) _build node_modules
