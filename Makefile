# Two commands do everything, set-up included:  make demo   make test
# Without make, the same from this folder:
#   python3 -m venv .venv
#   .venv/bin/pip install -e ".[headless,test]"      (Windows: .venv\Scripts\ instead of .venv/bin/)
#   .venv/bin/dreambooth-dpo demo --concept 0
#   .venv/bin/ruff check . && .venv/bin/pytest --ignore tests/host --ignore tests/browser && .venv/bin/python tools/hosts.py
PYTHON ?= python3
CONCEPT ?= 0
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# OpenMP threads that wait by spinning take the cores from the ones that work.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint

help: ## Show this list
	@echo "make TARGET [PYTHON=python3] [CONCEPT=0] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-6s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Make or reuse .venv and install everything into it

$(STAMP): pyproject.toml
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --no-input --disable-pip-version-check -e ".[headless,test]"
	@touch $@

demo: $(STAMP) ## Improve one toybox concept from start to report (CONCEPT=n chooses another)
	$(BIN)/dreambooth-dpo demo --concept $(CONCEPT) $(ARGS)

lint: $(STAMP) ## Check the code with ruff
	$(BIN)/ruff check .

test: lint ## Check the code, then run the tests (ARGS="-m slow" runs the slow ones), here and on every ComfyUI found (COMFYUI_PATH, else ~/ComfyUI*)
	$(BIN)/pytest -n 2 --dist loadfile --ignore tests/host --ignore tests/browser $(ARGS)
	$(BIN)/python tools/hosts.py $(ARGS)
