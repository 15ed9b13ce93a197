# make demo   the whole story, offline, on the embedded model
# make test   the test suite
# make coverage  the same, and how much of the code it runs, which costs half as much again
# make test-servers  real servers, built and started here; not part of make test
# make test-page  the page in a headless Chromium; not part of make test
# make test-ray  bulk prediction on a local Ray of two workers; not part of make test
# make check  lint, format, types
# make test-schema  the server against its own OpenAPI page, by schemathesis; not part of make test
# make test-oldest  the suite without torch, on the oldest versions that pyproject.toml allows
# make fuzz   the fuzzers and kill loops with many cases: FEWFIT_FUZZ=100000
# make docs   what is generated in docs/, again
# make bench  the committed benchmarks, again
# Each sets up what it needs first; a second call of setup is instant.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3
OLDEST ?= .venv-oldest

# The embedded model comes out of a wheel: nothing here needs a hub.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some hundred tests start a process: what they import is compiled once, not by each of them; and
# not all that is installed, most of which nobody imports: pip install --no-compile.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-oldest demo test coverage test-page test-servers test-ray test-schema test-oldest fuzz check docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (a minute or two, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt \
		--editable '.[english,excel,hf,minilm,parquet,plot,serve,tune]' --group dev
	@touch $(STAMP)

demo: setup
	@$(BIN)/fewfit demo --output demo-output

# One process more than cores, since tests wait for servers and processes; one thread each. A process
# whose tests are done takes half of those of another. ARGS is for pytest.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 1)' 2>/dev/null || echo auto)
PARALLEL = -n $(WORKERS) --dist worksteal

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

coverage: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --cov=fewfit --cov-report=term $(ARGS)

setup-oldest: $(OLDEST)/.installed

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --no-compile --constraint constraints-oldest.txt \
		--editable '.[serve]' pytest pytest-timeout pytest-xdist hypothesis httpx pandas datasets cma
	@touch $@

test-oldest: $(OLDEST)/.installed
	@OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -W default -p no:cacheprovider $(PARALLEL) tests \
		--ignore-glob='tests/tuning*' --ignore=tests/models/local --ignore=tests/servers --ignore=tests/browser \
		--ignore=tests/benchmarks --ignore=tests/fuzz --ignore=tests/docs \
		--ignore=tests/hf_checkpoints.py

fuzz: setup
	@FEWFIT_FUZZ=$${FEWFIT_FUZZ:-100000} $(BIN)/python -m pytest -q --timeout 0 tests/fuzz

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

docs: setup
	@$(BIN)/python -m tests.test_methods

bench: setup
	@$(BIN)/python -m benchmarks

test-schema: setup
	@tests/serve/schemathesis.sh $(BIN)/python

# Several minutes the first time: llama.cpp is compiled.
test-servers: setup
	@tests/servers/run.sh $(BIN)/python

# Playwright's driver, and a Chromium that is there: no browser is fetched. FEWFIT_SHOTS=FOLDER keeps pictures.
test-page: setup
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt playwright
	@FEWFIT_CHROMIUM=$${FEWFIT_CHROMIUM:-$$(command -v chromium || command -v chromium-browser || \
		command -v google-chrome)} $(BIN)/python -m pytest -v tests/browser

# Ray is 600 MB, and has an environment of its own.
test-ray: setup
	@tests/ray/run.sh $(BIN)/python

clean:
	rm -rf $(VENV) .venv-ray .venv-schemathesis $(OLDEST) demo-output
