# make run: everything, on canvases drawn by code     make test: all tests
# make lab: JupyterLab     make docs: the site of docs/, notebooks and functions
# PYTHON=python3.12 picks the interpreter, GALLERY=FOLDER runs on pictures of your own.
suited = for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(or $(shell $(suited)),python3)
BIN = .venv/bin
NOTEBOOKS = $(wildcard notebooks/*.ipynb notebooks/experiments/*.ipynb)
QUICK = -q -m "not slow" -n auto --maxprocesses 4 --dist loadfile
SLOW = -q -m slow -n auto --maxprocesses 2 --dist loadfile
PINS = pip compile --quiet --extra dev --no-annotate --custom-compile-command "make pins" pyproject.toml

.PHONY: setup setup-dev run paintings lab docs check test fix pins test-newest test-oldest
setup:
	@$(PYTHON) .ci/setup.py
setup-dev:
	@$(PYTHON) .ci/setup.py --dev
run: setup
	@$(BIN)/artclf run $(if $(GALLERY),"$(GALLERY)")
paintings: setup
	@$(BIN)/artclf run --lists paintings_urls
lab: setup
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks
docs: setup-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry artclf
	@$(BIN)/mypy
	@OMP_NUM_THREADS=1 ARTCLF_OFFLINE=1 $(BIN)/pytest $(QUICK) --cov --cov-report=
	@$(BIN)/coverage report --skip-covered --format=total
test: check
	@OMP_NUM_THREADS=1 ARTCLF_OFFLINE=1 $(BIN)/pytest $(SLOW)
fix: setup-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout --keep-id $(NOTEBOOKS)

# The versions that everybody gets: renew them, or test with the newest or the oldest that pyproject.toml admits.
pins: setup-dev
	@$(BIN)/uv $(PINS) --universal --python-version 3.11 --upgrade --output-file .ci/constraints.txt
test-newest: setup-dev
	@$(PYTHON) .ci/setup.py --dev .venv-newest newest
	@OMP_NUM_THREADS=1 ARTCLF_OFFLINE=1 .venv-newest/bin/pytest $(QUICK)
	@$(BIN)/pytest -m slow -k newest tests/test_versions.py
test-oldest: setup-dev
	@$(BIN)/uv $(PINS) --resolution lowest-direct --upgrade --output-file .venv-oldest.txt
	@$(PYTHON) .ci/setup.py --dev .venv-oldest .venv-oldest.txt
	@OMP_NUM_THREADS=1 ARTCLF_OFFLINE=1 .venv-oldest/bin/pytest $(QUICK)
	@$(BIN)/pytest -m slow -k oldest tests/test_versions.py
