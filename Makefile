# Needs Python 3.11 or newer and make; everything else is installed into .venv.

VENV ?= .venv
UV_VERSION := 0.13.9
BIN := $(VENV)/bin
UV := $(BIN)/uv
RUN := PYTHONPATH=include:plugins $(BIN)/python
BOOTSTRAP_PYTHON ?= $(shell command -v python3.11 || command -v python3)
CHECKED := include plugins dags tests benchmarks

.PHONY: help demo demo-down stack stack-down compose-env install install-dev test test-unit test-integration test-end-to-end \
  test-crash bench check format requirements clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## embed the sample library in a local Airflow, no AWS account needed; leaves the UI up
	@$(RUN) -m local_stack demo

demo-down: install ## stop what the demo has started; data and runs stay
	@$(RUN) -m local_stack demo-down

stack: install ## start S3 and the Bedrock simulator only, for use with any AWS SDK
	@$(RUN) -m local_stack stack up

stack-down: install ## stop them; data stays
	@$(RUN) -m local_stack stack down

compose-env: install ## write .local/compose.env, the environment file of docker-compose.yaml
	@$(RUN) -m local_stack compose-env

test: install-dev ## run all tests, the fast ones first
	$(RUN) -m pytest tests/unit --numprocesses 2
	$(RUN) -m pytest tests/integration --numprocesses 3 --dist loadfile
	$(RUN) -m pytest tests/end_to_end
	$(RUN) -m pytest tests/crash/test_short_set.py

test-unit: install-dev ## run the unit tests
	$(RUN) -m pytest tests/unit --numprocesses 2

test-integration: install-dev ## run the integration tests
	$(RUN) -m pytest tests/integration --numprocesses 3 --dist loadfile

test-end-to-end: install-dev ## run the end-to-end tests
	$(RUN) -m pytest tests/end_to_end

test-crash: install-dev ## kill processes at every step of a run, 45 min; CRASH_PART=1/4 a share, CRASH_AGAIN=1 also what has passed
	$(RUN) -m pytest tests/crash/test_kill_matrix.py tests/crash/test_stopped_submitter.py

bench: install-dev ## measure, some three hours on a quiet machine; benchmarks/results.py keeps what was measured
	for benchmark in headers slots event_loop merge merge_memory replacing unchanged_library search growth sync_rate; do \
	  echo "$$benchmark ..."; PYTHONPATH=include:plugins:. $(BIN)/python benchmarks/$$benchmark.py || exit 1; \
	done

check: install-dev ## lint, formatting, types
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy

format: install-dev ## format the code
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

# Each file is resolved on top of the one before, so that all three name the same versions.
requirements: $(UV) ## compile requirements*.in into requirements*.txt
	$(UV) pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 requirements.in -o requirements.txt
	$(UV) pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 requirements-demo.in -o requirements-demo.txt
	$(UV) pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 requirements-dev.in -o requirements-dev.txt

install: $(VENV)/.installed-demo ## install what the demo needs into .venv

install-dev: $(VENV)/.installed-dev ## install what tests and checks need into .venv

clean: ## remove .venv and everything that was generated; stop the demo first
	@if [ -x $(BIN)/python ] && [ -d .local ]; then $(RUN) -m local_stack demo-down && $(RUN) -m local_stack stack down; fi
	rm -rf $(VENV) .local .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find include plugins dags tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each requirements file: nothing is installed again until the file changes.
# Bytecode is left to the first run: compiling all of it here takes as long as that run saves.
.SECONDARY: $(VENV)/.installed-demo $(VENV)/.installed-dev

$(VENV)/.installed-%: requirements-%.txt $(UV)
	@begin=$$(date +%s); echo "installing $< ..."; \
	$(UV) pip install --quiet --python $(BIN)/python -r $< || exit 1; \
	echo "installed $< in $$(( $$(date +%s) - begin )) s"; touch $@

$(UV):
	@test -n "$(BOOTSTRAP_PYTHON)" && "$(BOOTSTRAP_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: install it, or name it: make BOOTSTRAP_PYTHON=/path/to/python3.11"; exit 1; }
	@begin=$$(date +%s); \
	{ test -x $(BIN)/python || "$(BOOTSTRAP_PYTHON)" -m venv $(VENV); } \
	&& $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)" \
	&& echo "created $(VENV) in $$(( $$(date +%s) - begin )) s"
