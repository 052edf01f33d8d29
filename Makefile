# make run: everything, on canvases drawn by code     make test: all tests     make lab: JupyterLab
# PYTHON=python3.12 picks the interpreter, GALLERY=FOLDER runs on pictures of your own.
suited = for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(or $(shell $(suited)),python3)
BIN = .venv/bin

.PHONY: setup run paintings lab check test fix
setup:
	@$(PYTHON) .ci/setup.py
run: setup
	@$(BIN)/artclf run $(if $(GALLERY),"$(GALLERY)")
paintings: setup
	@$(BIN)/artclf run --lists paintings_urls
lab: setup
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks
check: setup
	@$(BIN)/ruff check .
	@$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb $(wildcard notebooks/experiments/*.ipynb)
	@OMP_NUM_THREADS=1 ARTCLF_OFFLINE=1 $(BIN)/pytest -q -m "not slow" -n auto --maxprocesses 4 --dist loadfile
test: check
	@ARTCLF_OFFLINE=1 $(BIN)/pytest -q -m slow
fix: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/nbstripout --keep-id notebooks/*.ipynb $(wildcard notebooks/experiments/*.ipynb)
