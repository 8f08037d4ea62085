# Everything here sets up what it needs by itself, in .venv, and does so only once for each change of what it is made of.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
FUZZ_EXAMPLES ?= 20000
FUZZ_MINUTES ?= 10
SOAK_MINUTES ?= 10
CRASH_SECONDS ?= 180
ABUSE_OPTIONS ?=
CRASH_INSTANCES ?= 1
SIMULATE_SEEDS ?= 1000
BENCH_OPTIONS ?=
# What an installation is made of; the accelerator in C is left out where there is no compiler.
INSTALLED_FROM := pyproject.toml hatch_build.py src/qiyu/protocol/_accelerator.c
# What the tests in a browser take from npm; without npm they are skipped.
BROWSER_TOOLS := $(if $(shell command -v npm),tests/browser/node_modules/.installed)

.DEFAULT_GOAL := help
.PHONY: help serve demo cluster test check fuzz fuzz-coverage sanitize crash abuse simulate bench soak bench-quick bench-video bench-page screenshots clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.runtime ## Set up and run the server, on this machine only, with what config.toml says
	$(BIN)/qiyu serve

demo: $(VENV)/.runtime ## Run a server with rooms, an anchor and people who talk, to look at in a browser
	$(BIN)/python -m demo

cluster: $(VENV)/.development ## Run Redis, two instances and nginx in front of them, on this machine
	$(BIN)/python -m demo.cluster

test: $(VENV)/.development $(BROWSER_TOOLS) ## Set up and run the tests; those in a browser where there is a chromium
	$(BIN)/pytest

check: $(VENV)/.development ## Format, lint, types and the floor plan
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.development ## Run the property tests long (FUZZ_EXAMPLES=20000 examples each)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest -m property --hypothesis-profile=fuzz

fuzz-coverage: $(VENV)/.fuzzing ## Fuzz the parsers with coverage (FUZZ_MINUTES=10 for all of them together), from tests/corpus on
	cd tests && ../$(BIN)/python -m fuzzing --minutes $(FUZZ_MINUTES)

sanitize: $(VENV)/.development ## Run the tests of the accelerator with the sanitizers of a C compiler (FUZZ_EXAMPLES=20000)
	cd tests && FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) ../$(BIN)/python -m sanitized

crash: $(VENV)/.development ## Kill the server under load, again and again (CRASH_SECONDS=180 at least), and see what is lost
	cd tests && ../$(BIN)/python -m crash --seconds $(CRASH_SECONDS) --instances $(CRASH_INSTANCES) \
		$(if $(filter-out 1,$(CRASH_INSTANCES)),--database postgresql)

abuse: $(VENV)/.development ## Attack a server, and see what others notice of it (ABUSE_OPTIONS=--help)
	cd tests && ../$(BIN)/python -m abuse $(ABUSE_OPTIONS)

soak: $(VENV)/.development ## Let clients come and go, be killed and come back for long (SOAK_MINUTES=10), and see that nothing grows
	cd tests && ../$(BIN)/python -m soak --minutes $(SOAK_MINUTES)

simulate: $(VENV)/.development ## Run a cluster in one process, with everything going wrong that can (SIMULATE_SEEDS=1000)
	cd tests && ../$(BIN)/python -m simulate --seeds $(SIMULATE_SEEDS)

bench: $(VENV)/.runtime ## Measure everything, beside other servers: the better part of an hour
	$(BIN)/python -m bench --peers all $(BENCH_OPTIONS)

bench-quick: $(VENV)/.runtime ## Measure each workload briefly: about two minutes
	$(BIN)/python -m bench --quick $(BENCH_OPTIONS)

bench-video: $(VENV)/.development ## Measure how late the picture is, beside HLS, what viewers cost, and the chat beside them
	$(BIN)/python -m bench.video

bench-page: $(VENV)/.development ## Measure what the page weighs, how it does on a slow network, and how it bears a burst
	$(BIN)/python -m bench.page

screenshots: $(VENV)/.development ## Take the pictures of the page anew, with chromium, into docs/screenshots
	$(BIN)/python -m demo.screenshots

clean: ## Remove what was set up and built; data/ stays
	rm -rf $(VENV) dist build bench/.results bench/.peers .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache tests/browser/node_modules
	rm -f src/qiyu/protocol/_accelerator.*.so
	find src tests examples bench demo migrations -name __pycache__ -type d -prune -exec rm -rf {} +

# Made when it is whole: a set-up that was interrupted, or found no python3-venv, is done again from the beginning.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qiyu needs Python 3.11 or newer; this is " \
		+ sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: $(INSTALLED_FROM) | $(VENV)/.created
	$(PIP) install --editable .
	@touch $@

$(VENV)/.development: $(INSTALLED_FROM) | $(VENV)/.created
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.fuzzing: pyproject.toml | $(VENV)/.development
	$(PIP) install --editable '.[fuzz]'
	@touch $@

tests/browser/node_modules/.installed: tests/browser/package-lock.json
	npm --prefix tests/browser ci --silent --no-audit --no-fund
	@touch $@
