# Everything runs inside .venv, made from the hashed lock files: nothing global, and no internet once it stands.
# Needs Python >= 3.11, git and make. `make` alone prints help.

PYTHON  ?= python3
PROFILE ?= quick
ONLY    ?=
REFRESH ?=
SCHEDULER ?=
FROM    ?=
SCALE   ?= 1
SEED    ?= 0
ADVISORIES ?=

PY := .venv/bin/python
# One thread a process: small networks gain nothing from a second one, and runs fill the cores.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Compiled once, not by every run: a fresh process otherwise spends seconds on torch alone.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env reproduce merge verify test torture audit book dist lab bench lint format lock clean distclean

help: ## print this list
	@echo 'make TARGET [PROFILE=smoke|quick|full] [ONLY=02] [REFRESH=1] [SCHEDULER=tcp://host:8786] [FROM=folder] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

env: .venv/.stamp ## make .venv from the lock files (done once; again when they change)

# An existing .venv is kept and brought in step. uv itself comes hashed through pip; --require-hashes covers the rest, and
# `vsmd` and `repro` are linked in with the locked setuptools, so that nothing unhashed is fetched.
.venv/.stamp: requirements.lock requirements-uv.lock pyproject.toml repro/pyproject.toml
	@$(PY) -c '' 2>/dev/null || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make env: PYTHON=$(PYTHON): must be a Python >= 3.11, for example make env PYTHON=python3.12' >&2; exit 1; }; \
	  echo 'make env: .venv, once; with nothing cached a few gigabytes are fetched'; $(PYTHON) -m venv --clear .venv; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@.venv/bin/uv pip sync -q --python $(PY) --require-hashes requirements.lock requirements-uv.lock
	@.venv/bin/uv pip install -q --python $(PY) --no-deps --no-build-isolation --editable . --editable ./repro
	@touch $@

reproduce: env ## every notebook of PROFILE, then the report; continues where it was interrupted
	@$(PY) -m repro --profile $(PROFILE) $(if $(ONLY),--only $(ONLY)) $(if $(REFRESH),--refresh) $(if $(SCHEDULER),--scheduler $(SCHEDULER))

merge: env ## rows of PROFILE that another machine made, from its reports folder or spool, FROM=folder
	@$(PY) -m repro merge --profile $(PROFILE) $(if $(FROM),'$(FROM)')

verify: env ## after a change of code: run one stale run of each kind (ONLY=table: of its kinds) by the old code and the new; carry over what comes out the same
	@$(PY) -m repro.grid.verify --profile $(PROFILE) $(if $(ONLY),--only $(ONLY))

test: env ## unit tests, then every notebook in the smoke profile (exact facts compared, the rest only run)
	@$(PY) -m pytest -q -n auto --maxprocesses 8
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then \
	  VSMD_PROFILE=smoke $(PY) -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 600 notebooks; fi

torture: env ## kill it, feed it damaged files and odd arguments: reports/reliability.md; [ONLY=kills,files] [SCALE=.1] [SEED=1]
	@PYTHONPATH=tests $(PY) -m torture --scale $(SCALE) --seed $(SEED) $(if $(ONLY),--only $(ONLY))

audit: env ## hold the lock file against known weaknesses: ADVISORIES=a folder, file or zip of OSV's for PyPI
	@PYTHONPATH=tests $(PY) -m torture.audit $(if $(ADVISORIES),'$(ADVISORIES)')

book: env ## the book, from stored results: build/book/html/index.html (warnings are errors)
	@$(PY) -m repro.book

dist: env ## wheel and sdist of vsmd and the wheel of repro, without network: build/dist
	@rm -rf build/dist build/lib build/bdist.* repro/build
	@$(PY) -c 'import setuptools.build_meta as b; b.build_sdist("build/dist"); b.build_wheel("build/dist")' >/dev/null
	@cd repro && ../$(PY) -c 'import setuptools.build_meta as b; b.build_wheel("../build/dist")' >/dev/null
	@rm -rf build/lib build/bdist.* repro/build
	@ls build/dist

lab: env ## JupyterLab on the notebooks
	@cd notebooks && ../$(PY) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

bench: env ## time kernel, training step, solver step and import against their references
	@$(PY) -m repro.studies.bench

lint: env ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: env ## let ruff sort imports and format
	@$(PY) -m ruff check --select I --fix .
	@$(PY) -m ruff format .

lock: env ## solve the lock file anew after pyproject.toml changed (pins are kept where they still fit)
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-header pyproject.toml -o requirements.lock

clean: ## remove caches and the reports of the smoke and quick profiles (.venv and reports/ stay)
	@rm -rf reports/smoke reports/quick .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info repro/build repro/*.egg-info
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

distclean: clean ## remove .venv and unfinished runs too
	@rm -rf .venv reports/.cache
