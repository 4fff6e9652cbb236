# `make demo` runs every stage on the embedded corpus; `make test` checks the style and runs the tests, `make test-slow`
# those that it leaves out, `make test-all` both at once, which then share what they set up, `make test-export` those of
# other formats; `make docs` builds the site of docs/; `make lint` mends what can be mended of the style. Each sets up
# what it needs first.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.PHONY: demo style test test-slow test-all test-export docs lint lock clean

demo: .venv/installed
	$(BIN)/mmpretrain run --config=demo

style: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: style
	$(BIN)/pytest $(PARALLEL) --durations=20

test-slow: .venv/installed
	$(BIN)/pytest $(PARALLEL) -m slow --durations=20

test-all: style
	$(BIN)/pytest $(PARALLEL) -m 'not endurance' --durations=40

# Other formats, with what `make test` does without. Of torch the package alone: it asks for gigabytes of CUDA that CPUs
# have no use for. Where PyPI's own build is found, which does not start without them, for CPUs:
# make test-export TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'.
TORCH ?= torch==2.13.0
test-export: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps $(TORCH)
	$(BIN)/python -m pip install --quiet filelock fsspec jinja2 networkx 'sympy>=1.13.3' transformers onnx onnxruntime onnxscript
	$(BIN)/pytest $(PARALLEL) tests/export/test_formats.py tests/export/transformers tests/text tests/encoders/test_foreign.py tests/test_torch_baseline.py tests/test_examples.py -rs

# In an environment of its own, which needs nothing of ours: the API's pages are read from the source.
docs:
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet 'mkdocs-material>=9.7' 'mkdocstrings-python>=2'
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

.venv/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mmpretrain needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@# MediaPipe brings an OpenCV that needs a desktop's libraries; a bare server takes the headless build instead.
	$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --quiet --force-reinstall --no-deps \
	    opencv-contrib-python-headless==$$($(BIN)/python -c 'from importlib.metadata import version as v; print(v("opencv-contrib-python"))')
	@# librosa compiles its loops where they are first used, for half a minute, and keeps them.
	$(BIN)/python -c 'import numpy; from mmpretrain.features.prosody import measure_prosody; measure_prosody(numpy.ones(16000, "int16"), 25)'
	touch $@

# Versions and hashes of all that the tests need, for Python 3.11 to 3.13 at once.
lock: .venv/installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra test --python-version 3.11 --universal --generate-hashes --upgrade \
	    --no-emit-index-url --quiet --custom-compile-command 'make lock' --output-file requirements.lock

lint: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-docs site runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
