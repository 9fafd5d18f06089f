# Every target sets up what it needs. The same in plain commands: see README.md.

PYTHON := $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c \
	'import sys; 0x30b0000 <= sys.hexversion < 0x30e0000 and print("$(p)")' 2>/dev/null)))
BIN := .venv/bin
READY := .venv/.ready

# `make run` takes the built-in sample unless a DATA_DIR or a DATA_SOURCE is given.
AGAINST ?= $(wildcard figures/sample)
GIVEN_SOURCE := $(or $(DATA_SOURCE),auto)
DATA_SOURCE ?= $(if $(DATA_DIR),auto,sample)
export DATA_SOURCE $(if $(DATA_DIR),DATA_DIR)
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadscope
LOCKED := --quiet --no-build --require-hashes --constraint requirements.lock
RESOLVE := $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--custom-compile-command "make lock"
# In the place of a key: no file that a notebook writes may hold it.
PLANTED := planted-c41f9d07e2ab685d
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/notebooks/sanitize.cfg

.PHONY: setup run full lab app test browser twice references report figures results bench doctor torture lock security clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found."; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --only-binary :all: --require-hashes -r /dev/stdin
	$(BIN)/uv pip install $(LOCKED) --compile-bytecode --python $(BIN)/python -r pyproject.toml --extra test
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@.ci/nbdime setup
	@touch $@

run: $(READY)  ## all notebooks, or NB=01_mnist, in quick mode, with HTML reports; JOBS=1 at a time
	@NOTEBOOK_MODE=quick $(BIN)/python -m helpers.run $(if $(JOBS),--jobs $(JOBS)) $(NB)

full: $(READY)  ## the real run: make full NB=01_mnist DATA_DIR=...
	@NOTEBOOK_MODE=full DATA_SOURCE=$(GIVEN_SOURCE) $(BIN)/python -m helpers.run $(if $(JOBS),--jobs $(JOBS)) $(NB)

lab: $(READY)  ## JupyterLab in the project's folder
	@DATA_SOURCE=$(GIVEN_SOURCE) $(BIN)/python -m helpers.lab

app: $(READY)  ## the page that classifies your own image, served on this machine
	@$(BIN)/python -m helpers.app

test: $(READY)  ## lint, unit tests, then every notebook compared with its saved outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST)
	rm -rf figures/sample
	KAGGLE_KEY=$(PLANTED) NOTEBOOK_MODE=quick DATA_SOURCE=sample $(PYTEST) -p no:cacheprovider $(NBVAL) notebooks
	$(PYTEST) --dist worksteal tests/notebooks/after_notebooks.py

browser: $(READY)  ## the notebooks and the pages in Chromium, which Debian's package brings if there is none
	$(BIN)/uv pip install $(LOCKED) --python $(BIN)/python --group browser
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
		test "$$(id -u)" = 0 && command -v apt-get > /dev/null || { \
		echo "Chromium is needed and was not found. On Debian and Ubuntu: sudo apt install chromium"; exit 1; }; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium
	$(BIN)/python -m pytest -q --durations=0 --durations-min=1 tests/browser

twice: $(READY)  ## each cell run twice in a row; the tables are compared with those of the last normal run
	@$(BIN)/python tests/notebooks/twice.py $(if $(AGAINST),--against $(AGAINST)) $(NB)

references: $(READY)  ## execute the notebooks on the sample and save their outputs in place
	@NOTEBOOK_MODE=quick DATA_SOURCE=sample $(BIN)/python -m helpers.run --save $(NB)

report: $(READY)  ## the pages in reports/ again, and each as PDF with Chromium
	@$(BIN)/python -m helpers.reports

figures: $(READY)  ## all figures again from the tables of their runs, without training; NOTEBOOK_LANGUAGE=fr: in French
	@$(BIN)/python -m helpers.evaluation.redraw

results: $(READY)  ## the results in README.md and figures/RESULTS.md, and figures/overview.png, from the full runs
	@$(BIN)/python -m helpers.evaluation.overview

bench: $(READY)  ## ratios measured side by side, into benchmarks/: all, or make bench ROWS="memory transfer"
	@$(BIN)/python -m benchmarks $(ROWS)

doctor: $(READY)  ## check caches, models, results and reports; REPAIR=1 removes what is damaged or of no use in the caches
	@$(BIN)/python -m helpers.doctor $(if $(REPAIR),--repair)

torture: $(READY)  ## kills, full disks, hostile files, 100,000 images ...: 30 minutes, into docs/torture.md; PARTS="kills disks"
	@$(BIN)/python -m benchmarks.torture $(PARTS)

lock: $(READY)  ## pins again, only those that no longer fit pyproject.toml; RAISE="numpy pandas", or RAISE=all, to the newest
	$(RESOLVE) --generate-hashes $(if $(filter all,$(RAISE)),--upgrade,$(RAISE:%=--upgrade-package %)) \
		pyproject.toml --extra test --group setup --group browser --group security -o requirements.lock
	$(RESOLVE) --no-annotate --constraint requirements.lock requirements.in -o requirements.txt

security: $(READY)  ## known vulnerabilities of all locked packages, where a source of advisories is reachable
	@.ci/security

clean:  ## remove what can be made again; never data/
	rm -rf .venv .cache models reports figures/sample figures/quick figures/*/images .pytest_cache .ruff_cache *.egg-info
	find helpers tests -name __pycache__ -type d -prune -exec rm -rf {} +
