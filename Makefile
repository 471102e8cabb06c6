# Everything a checkout needs: `make` lists it. A machine needs Python 3.11 or newer, git and make.
# Packages come from whatever index pip or uv is configured for on this machine, and only with the locked hashes.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 1000
N ?= 5000

BIN := .venv/bin
SYSTEM_UV := $(shell command -v uv 2>/dev/null)
UV := $(if $(SYSTEM_UV),$(SYSTEM_UV),.uv/bin/uv)
UV_READY := $(if $(SYSTEM_UV),,.uv/ready)
LOCK := $(UV) pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links
INSTALL_SELF := $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
COVERING := tests/core tests/ledger tests/roles
TEST_FOLDERS := $(sort $(dir $(wildcard tests/*.py tests/*/*.py tests/*/*/*.py)))

# uv does not read pip's variable; a machine that sets only that one means both.
ifndef UV_DEFAULT_INDEX
ifndef UV_INDEX_URL
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX := $(PIP_INDEX_URL)
endif
endif
endif
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check lint types floors size bench stages scale flames model simulate torture fuzz soak audit lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  Arguments for demo, test, coverage, bench and torture go into ARGS: make demo ARGS="--count 500"'

demo: .venv/run.stamp  ## see it work on this machine, without a key or a Redis
	@$(BIN)/batchmill demo $(ARGS)

test: .venv/dev.stamp  ## run the tests
	@$(BIN)/python -m pytest -q -n 2 -m "not long" $(ARGS)

coverage: .venv/dev.stamp  ## see that core, ledger and roles are covered by their tests: 95 % of lines and of branches
	@$(BIN)/python -m pytest -q -n 2 --cov --cov-report= $(COVERING) $(ARGS)
	@$(BIN)/python tests/covered.py

check: lint types floors size  ## lint, format, types, import floors, file sizes

lint: .venv/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# One run per test folder: they are no packages, so each may have a conftest and helpers of its own.
types: .venv/dev.stamp
	@$(BIN)/mypy worker benchmarks
	@failed=0; for folder in $(TEST_FOLDERS); do $(BIN)/mypy "$$folder"*.py || failed=1; done; exit $$failed

floors: .venv/dev.stamp
	@$(BIN)/lint-imports

size: .venv/dev.stamp
	@$(BIN)/python -m pytest -q -rP tests/docs/test_size.py

bench: .venv/dev.stamp  ## measure beside the script a user would write: ARGS="--prompts 20000 --runs 1" for a first look
	@$(BIN)/python -m benchmarks $(ARGS)

stages: .venv/dev.stamp  ## measure each stage of a prompt's life beside its physical limit
	@$(BIN)/python -m benchmarks.stages $(ARGS)

scale: .venv/dev.stamp  ## measure what more of everything costs: a million prompts, 200 lanes, replicas, Redis' memory
	@$(BIN)/python -m benchmarks.scale $(ARGS)

flames: .venv/dev.stamp  ## draw where the time of sealing, submitting and draining goes: docs/flames
	@$(BIN)/python -m benchmarks.flames $(ARGS)

model: .venv/dev.stamp  ## search every interleaving of the protocol within bounds; pypy3 halves the time
	@$(or $(shell command -v pypy3 2>/dev/null),$(BIN)/python) tests/model/run.py $(ARGS)

fuzz: .venv/dev.stamp  ## N hostile prompts, results and answers, each accounted for: N=50000
	@FUZZ=$(N) $(BIN)/python -m pytest -q -s tests/fuzz $(ARGS)

audit: .audit/ready  ## look for known flaws in the locked libraries, where advisories can be reached
	@PIP_AUDIT=.audit/bin/pip-audit .ci/audit

simulate: .venv/dev.stamp  ## live through SEEDS worlds in which everything fails, each repeatable: SEEDS=10000
	@$(BIN)/python tests/simulation/simulate.py --seeds $(SEEDS) $(ARGS)

torture: .venv/dev.stamp  ## kill, freeze and cut off everything, and count: ARGS="--kills 1000 --prompts 50000 --minutes 50"
	@$(BIN)/python tests/torture/run.py $(ARGS)

soak: .venv/dev.stamp  ## live a day in minutes and see that nothing grows: ARGS="--minutes 15"
	@$(BIN)/python tests/soak/run.py $(ARGS)

lock: $(UV_READY)  ## resolve requirements/*.txt anew from pyproject.toml
	@mkdir -p requirements
	@$(LOCK) --all-extras --group dev --output-file requirements/dev.txt pyproject.toml
	@$(LOCK) --all-extras --constraint requirements/dev.txt --output-file requirements/run.txt pyproject.toml
	@$(LOCK) --constraint requirements/dev.txt --output-file requirements/build.txt --group build
	@$(LOCK) --output-file requirements/uv.txt --group installer
	@$(LOCK) --constraint requirements/dev.txt --output-file requirements/audit.txt --group audit

clean:  ## remove what make and the tools made; results and queues stay
	rm -rf .venv .uv .audit dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

define CHECK_PYTHON
@command -v $(PYTHON) >/dev/null \
  || { echo "make: there is no $(PYTHON); name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "make: batchmill needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another:" \
       "make PYTHON=/path/to/python3.11" >&2; exit 1; }
endef

.venv/bin/python: | $(UV_READY)
	$(CHECK_PYTHON)
	@$(UV) venv --quiet --python "$$(command -v $(PYTHON))" .venv

.venv/dev.stamp: requirements/dev.txt pyproject.toml | .venv/bin/python $(UV_READY)
	@echo "Installing the locked tools and libraries into .venv"
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(INSTALL_SELF)
	@touch .venv/run.stamp $@

# A full environment serves the demo too: never take the tools out of it again.
.venv/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml | .venv/bin/python $(UV_READY)
	@if [ -e .venv/dev.stamp ]; then rm .venv/dev.stamp; exec $(MAKE) --no-print-directory .venv/dev.stamp; fi; \
	echo "Installing the locked libraries into .venv" && \
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/run.txt requirements/build.txt && \
	$(INSTALL_SELF) && touch $@

# A place of its own: what audits is not among what is audited as part of the program.
.audit/ready: requirements/audit.txt | $(UV_READY)
	$(CHECK_PYTHON)
	@echo "Installing pip-audit into .audit"
	@$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .audit
	@$(UV) pip sync --quiet --python .audit/bin/python --require-hashes requirements/audit.txt
	@touch $@

.uv/ready: requirements/uv.txt
	$(CHECK_PYTHON)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) cannot make virtual environments; install python3-venv (Debian, Ubuntu) or uv" >&2; exit 1; }
	@echo "Installing uv into .uv"
	@$(PYTHON) -m venv --clear .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@touch $@
