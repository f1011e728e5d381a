# `make` runs the demo on real weights; `make test` the tests. Each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
BUILD := sim_build
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

.DEFAULT_GOAL := demo
.PHONY: demo test test-all lint verilog exhaustive soak measure readme clean distclean

demo: verilog
	@$(BIN)/mxforge demo --build-dir $(BUILD)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mxforge lint --build-dir $(BUILD)

verilog: $(VENV)/.demo
	@$(BIN)/mxforge verilog --force -o $(BUILD)/verilog

exhaustive: $(VENV)/.demo
	@$(BIN)/mxforge exhaustive --build-dir $(BUILD)

# The virtual board over a bad line: some ten minutes.
FRAMES ?= 100000
soak: $(VENV)/.fpga
	@$(BIN)/mxforge fpga soak --frames $(FRAMES) --build-dir $(BUILD) $(ARGS)

# The tables of README and docs, from the manifests and what was measured.
readme: $(VENV)/.demo
	@$(BIN)/python -m mxforge.flow.tables README.md $(wildcard docs/*.md)

# Figures whose Verilog or tools have changed; `make measure FMAX=` leaves place and route out, ARGS=--all measures all.
FMAX ?= --fmax
measure: $(VENV)/.dev
	@$(BIN)/mxforge measure --build-dir $(BUILD) $(FMAX) $(ARGS)
	@$(MAKE) --no-print-directory readme

# Keeps .venv; `make distclean` removes that too.
clean:
	find $(BUILD) -mindepth 1 -maxdepth 1 ! -name .gitignore -exec rm -rf {} +
	rm -rf dist .pytest_cache .ruff_cache

distclean: clean
	rm -rf $(VENV)

# Checked before any work, since what follows takes minutes. $(1): the extra to install.
define set_up
	@command -v g++ >/dev/null || { echo "mxforge: g++ is missing; install it with: apt-get install g++" >&2; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "mxforge: $(PYTHON) is missing; install it with: apt-get install python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mxforge: $(PYTHON) is $$($(PYTHON) -V 2>&1 | cut -d" " -f2); Python 3.11 or newer is needed (make PYTHON=python3.12)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "mxforge: Python's venv is missing; install it with: apt-get install python3-venv" >&2; exit 2; }
	@echo "Setting up $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]'
	@touch $@
endef

$(VENV)/.demo: pyproject.toml
	$(call set_up,demo)

$(VENV)/.fpga: pyproject.toml
	$(call set_up,fpga)

$(VENV)/.dev: pyproject.toml
	$(call set_up,dev)
	@touch $(VENV)/.demo $(VENV)/.fpga
