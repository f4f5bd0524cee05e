# `make app` and `make test` need nothing but Python 3.11 or newer (and make).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: app notebooks test test-slow test-notebooks bench docs lint clean

app: $(VENV)/.app
	$(BIN)/streamlit run app/main.py --server.address 127.0.0.1

notebooks: $(VENV)/.test
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir notebooks

test: lint
	$(BIN)/python -m pytest

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# Minutes: every notebook from top to bottom.
test-notebooks: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow or not slow" tests/notebooks

# Hours: it decodes 500 crystals by every schedule. Each line can be run by itself.
bench: $(VENV)/.test
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/interactive.py
	$(BIN)/python benchmarks/interactive.py --browser
	$(BIN)/python benchmarks/sessions.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/shards.py
	$(BIN)/python benchmarks/baselines.py
	$(BIN)/python benchmarks/samplers.py

# The site, into site/; a warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# What .pre-commit-config.yaml runs, too.
lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.app: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/.test: $(VENV)/.app requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

$(VENV)/.docs: $(VENV)/.app requirements-docs.txt
	$(BIN)/python -m pip install -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV)
