# Everything runs in .venv, which is made here from Python 3.11 alone and holds exactly requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test ui bench soak image lint lock setup clean-var

demo: setup
	$(BIN)/fraud-platform demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

ui: setup
	$(BIN)/fraud-platform ui

bench: setup
	$(BIN)/python -m tests.perf.bench
	$(BIN)/python -m tests.perf.offline

# Half an hour of load on the service: make soak SOAK="--minutes 5".
soak: setup
	$(BIN)/python -m tests.perf.soak $(SOAK)

# The last Bento that was built, as a container image: make image IMAGE="--backend podman --base NAME".
image: setup
	$(BIN)/fraud-platform image $(IMAGE)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import lightgbm" 2>/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq libgomp1; } \
	  || { echo "lightgbm needs the system library libgomp: apt-get install libgomp1, then again"; exit 1; }
	touch $@

# Resolves the ranges of pyproject.toml again: names, versions and hashes, no addresses.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile pyproject.toml --all-extras --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --output-file requirements.lock
	rm -rf $(VENV)-lock

clean-var:
	rm -rf var
