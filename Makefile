# The two commands are `make quickstart` and `make test`; each makes .venv first where it is missing.
# GNU make and a POSIX shell. Choose another interpreter with `make setup PYTHON=/path/to/python3.12`.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := lm,voices,onnx,serve,translation,dev
PIP_INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet \
	--disable-pip-version-check --only-binary=:all: --constraint constraints.txt
# Two processes of one thread each: threads that share the cores of a busy machine wait for each other.
PYTEST_ARGS ?= -n 2 --dist loadfile
QUICKSTART_ARGS ?=
STAMP := $(VENV)/.installed

# Run $(2), saying what it does, $(1), before, and how long it took after.
define timed
@printf '==> %s\n' "$(1)"; start=$$(date +%s); ( $(2) ); status=$$?; \
	seconds=$$(( $$(date +%s) - start )); \
	if [ $$status -eq 0 ]; then printf '<== %s: done in %d s\n' "$(1)" $$seconds; \
	else printf '<== %s: FAILED after %d s\n' "$(1)" $$seconds; fi; exit $$status
endef

.PHONY: help setup quickstart test lint results clean

help:
	@echo "make quickstart   install, then the main job end to end on synthetic speech (15 minutes)"
	@echo "make setup        create .venv and install everything at the tested versions"
	@echo "make test         style, types, floors, tests (under 10 minutes on 2 cores)"
	@echo "make lint         the same without the tests"
	@echo "make results      regenerate docs/RESULTS.md and recipes/*/RESULTS.md from results/"
	@echo "make clean        remove .venv and caches; runs/ and data/ stay"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/find_python.sh
	@mkdir -p $(VENV); date +%s > $(VENV)/.begun
	$(call timed,creating $(VENV),python=$$(PYTHON='$(PYTHON)' sh tools/find_python.sh) && \
		"$$python" -m venv $(VENV))
	$(call timed,installing the versions of constraints.txt (about 3 minutes and 6 GB the first time),\
		$(PIP_INSTALL) --editable ".[$(EXTRAS)]" && \
		$(PIP_INSTALL) --no-deps num2words)
	@echo $$(( $$(date +%s) - $$(cat $(VENV)/.begun) )) > $@

quickstart: setup
	$(call timed,quickstart,$(BIN)/python tools/quickstart.py $(QUICKSTART_ARGS))

lint: setup
	$(call timed,ruff check,$(BIN)/ruff check .)
	$(call timed,ruff format --check,$(BIN)/ruff format --check .)
	$(call timed,mypy,$(BIN)/mypy)
	$(call timed,import-linter,$(BIN)/lint-imports)

test: lint
	$(call timed,pytest,env OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS))

results: setup
	$(call timed,results,$(BIN)/python tools/make_results.py)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache build dist *.egg-info
