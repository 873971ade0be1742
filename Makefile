# From a fresh clone: `make demo` or `make test`. Both set up .venv first.

SHELL := bash
BIN := .venv/bin
DONE := .venv/.installed
TARGET := cosmos24108
SEED := 1
OUT := demo
SMALL ?=
PYTEST :=

export PYTHON    # make PYTHON=/path/to/python3 chooses the interpreter

# Chains long enough to run, not to believe: for CI and for trying things out.
CHAINS := $(if $(SMALL),--chains 2 --warmup 100 --draws 100)

.PHONY: help setup demo test lint bench notebooks docs clean stale
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{printf "make %-10s %s\n", $$1, $$2}'
	@echo "SMALL=1 runs demo and notebooks with short chains; PYTHON=... chooses the interpreter"

setup: $(DONE)  ## make .venv and install metalgrad into it, with its tools

# pip 25.1 is the first to know dependency groups.
$(DONE): pyproject.toml constraints.txt .ci/python
	@bash .ci/python
	@echo "installing metalgrad and its tools into .venv (a minute or two)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "pip>=25.1"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e ".[plot]" --group dev
	@echo "$(CURDIR)" > $@

# Made anew, too, when the interpreter behind .venv is gone, or when .venv came along
# with a checkout that was copied or moved.
ifneq ($(shell test -x $(BIN)/python && cat $(DONE) 2>/dev/null),$(CURDIR))
$(DONE): stale
endif

demo: $(DONE)  ## draw a mock galaxy and fit it
	$(BIN)/metalgrad simulate --target $(TARGET) --seed $(SEED) --out $(OUT) --overwrite
	$(BIN)/metalgrad fit $(OUT)/$(TARGET)_mock_s3d.fits --target $(TARGET) \
		--seed $(SEED) --out $(OUT)/fit --overwrite $(CHAINS)

test: $(DONE)  ## run the fast tests; PYTEST="-m slow" and the like are passed on
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST)

lint: $(DONE)  ## what CONTRIBUTING.md asks for before a request
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(DONE)  ## run every benchmark
	set -e; for bench in benchmarks/bench_*.py; do $(BIN)/python "$$bench"; done

notebooks: export MPLBACKEND := Agg
notebooks: export METALGRAD_SMALL := $(SMALL)
# What one notebook has compiled serves the next, as far as they have the same models.
notebooks: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/build/jax
notebooks: $(DONE)  ## run every notebook as the script it is
	set -e; for notebook in notebooks/*.py; do echo "$$notebook"; $(BIN)/python "$$notebook"; done

docs: $(DONE)  ## build the documentation in docs/_build; a warning is an error
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt --group docs
	$(BIN)/python -m sphinx -b html -q -W --keep-going docs docs/_build

clean:  ## remove what make laid down
	rm -rf .venv .uv build dist demo docs/_build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
