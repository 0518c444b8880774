# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
PYTEST_PROCESSES := --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0 --durations 20

# An environment with the oldest packages that pyproject.toml allows. Those that it does not name are the newest of a
# day, so that the same commit gets the same packages. The extras for programs of others are left out: these ask for
# newer packages than we do.
FLOORS := .venv-floors
FLOORS_DAY := 2026-11-27
FLOORS_EXTRAS := train,export,robustness,video,geo,micro,sample,dev
FLOORS_TESTS ?= tests/ops tests/models tests/test_api.py tests/test_package.py tests/test_requirements.py \
	tests/data/test_images.py tests/data/test_rasters.py tests/data/test_every_kind_of_raster.py tests/data/test_windows.py \
	tests/data/test_vector_labels.py tests/data/test_videos.py tests/export/test_export.py tests/inference/test_core_install.py \
	tests/tasks/classification/test_train.py tests/tasks/detection/test_train.py tests/training/test_report.py \
	tests/cli/test_train.py tests/cli/test_predict.py
# The oldest matplotlib calls functions by names that the newest pyparsing warns of.
FLOORS_WARNINGS := -W ignore::pyparsing.warnings.PyparsingDeprecationWarning

.PHONY: setup demo test test-floors check clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cyclemlp needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]'
	touch $@

demo: setup
	$(BIN)/cyclemlp demo

test: setup
	$(BIN)/python -m pytest $(PYTEST_PROCESSES)

$(FLOORS)/.ready: pyproject.toml Makefile
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet uv
	$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS)/bin/python --resolution lowest-direct \
		--exclude-newer $(FLOORS_DAY) --editable '.[$(FLOORS_EXTRAS)]'
	touch $@

test-floors: $(FLOORS)/.ready
	$(FLOORS)/bin/python -m pytest $(PYTEST_PROCESSES) $(FLOORS_WARNINGS) $(FLOORS_TESTS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(FLOORS) demo demo-detection demo-instance-segmentation runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
