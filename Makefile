# Each target sets up .venv by itself; nothing else needs to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help simulate simulate-full fleet test lint
help:            ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/'

simulate: $(VENV)/.installed       ## the quick simulation: synthetic subjects, a few minutes on two cores
	$(BIN)/python simulations/see_by_subject.py

simulate-full: $(VENV)/.installed  ## all 111 synthetic subjects, no time limit
	$(BIN)/python simulations/see_by_subject.py --scale full

# The wearables need the capture extra, which the tests' environment has.
fleet: $(VENV)/.installed-dev      ## a server and three simulated wearables learn for a round; some minutes on two cores
	$(BIN)/python simulations/fleet_of_wearables.py

# Three files at a time, since many wait, in their order, so that the longest do not come last; beside them the types, which are told last.
test: $(VENV)/.installed-dev       ## set up and run every test
	$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy > $(VENV)/types.log 2>&1 & types=$$!; \
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.log; \
	test $$tests = 0 && test $$types = 0

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed
