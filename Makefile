# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else that is prepared.

VENV := .venv
# TensorFlow has no builds for newer Pythons yet, so a suitable one is looked for.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done)
BIN := $(VENV)/bin
DECLARED := setup.cfg pyproject.toml constraints.txt

# Two processes of tests, whatever the machine: each holds TensorFlow, and tests of speed there are
# none. A file stays whole, and so does a folder of TOGETHER in tests/conftest.py, so that what its
# tests share is made once.
TOGETHER := -n 2 --dist loadfile

# Which breaks of the package `make mutants` tries.
SEED ?= 1

# Which backends beside TensorFlow `make test-backends` tries: jax, torch.
BACKENDS ?= jax

# How long `make fuzz` runs each target, in all.
SECONDS ?= 60

# Versions with hashes for every platform and Python of cnnkit. No address of a package index is kept.
LOCK = $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' --no-annotate --no-emit-index-url --no-emit-find-links \
	-c constraints.txt

# The environment of `make test-light`: cnnkit-client, and no TensorFlow.
LIGHT := $(VENV)-light

.PHONY: demo test test-all test-light test-backends coverage lint format docs notebooks protos bench mutants fuzz lock pin-images sbom clean

demo: $(VENV)/demo.stamp  ## train, look inside, export, serve and query on real digits
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

test: lint  ## the whole check
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow"

test-all: lint $(VENV)/bench.stamp $(VENV)/notebooks.stamp  ## the check with PyTorch, real weights and long runs
	$(BIN)/python -m pytest $(TOGETHER)

test-light: $(LIGHT)/light.stamp  ## the installed wheel of the client, without TensorFlow
	$(LIGHT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--force-reinstall ./client
	$(LIGHT)/bin/python -m pip check
	rm -rf build/light
	mkdir -p build/light
	cp -r tests setup.cfg build/light
	cd build/light && $(CURDIR)/$(LIGHT)/bin/python -m pytest tests/client tests/wire -m "not slow"

coverage: $(VENV)/dev.stamp  ## the tests, with the lines that they do not reach
	mkdir -p build
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow" --cov --cov-report=term-missing

test-backends: $(VENV)/dev.stamp  ## networks and layers without TensorFlow, against its answers
	mkdir -p build/answers
	$(BIN)/python tests/backends/answers.py build/answers
	for backend in $(BACKENDS); do \
		$(PYTHON) -m venv $(VENV)-$$backend && \
		$(VENV)-$$backend/bin/python -m pip install --quiet --disable-pip-version-check \
			-c constraints.txt keras pytest $$backend && \
		CNNKIT_ANSWERS=build/answers KERAS_BACKEND=$$backend PYTHONPATH=. \
			$(VENV)-$$backend/bin/python -m pytest -c tests/backends/pytest.ini --noconftest \
			tests/backends/check_backend.py tests/layers/test_keras_harness.py || exit 1; \
	done

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/docs.stamp  ## the API reference and the guides, in build/docs
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python docs/build_site.py build/docs

notebooks: $(VENV)/notebooks.stamp  ## the lectures as notebooks with their outputs, in build/notebooks
	$(BIN)/python notebooks/build_notebooks.py build/notebooks

protos: $(VENV)/dev.stamp  ## generate the *_pb2 modules from their .proto files
	$(BIN)/python -m grpc_tools.protoc -I serving --python_out=cnnkit/wire \
		--pyi_out=cnnkit/wire serving/cnnkit_serving.proto serving/open_inference.proto
	$(BIN)/python -m grpc_tools.protoc -I cnnkit/models/weights \
		--python_out=cnnkit/models/weights --pyi_out=cnnkit/models/weights \
		cnnkit/models/weights/caffe_weights.proto

bench: $(VENV)/bench.stamp  ## the benchmarks, one after the other; without that of a GPU
	for file in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

mutants: $(VENV)/dev.stamp  ## breaks the package in 200 places and counts what the tests notice
	$(BIN)/python -m tests.mutation --seed $(SEED)

fuzz: $(VENV)/dev.stamp  ## bytes made to break their readers, SECONDS for each; goes on if stopped
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --folder build/fuzz

lock:  ## hashes of all packages, in requirements/
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	mkdir -p requirements
	echo setuptools | $(LOCK) serving/client-requirements.txt - -o requirements/client.txt
	echo setuptools | $(LOCK) serving/embedded/requirements.txt - -o requirements/server.txt
	$(LOCK) setup.cfg --extra report -o requirements/cnnkit.txt
	$(LOCK) setup.cfg --extra gpu --extra report -o requirements/gpu.txt
	$(LOCK) setup.cfg --extra bench --extra dev --extra docs --extra litert --extra metrics \
		--extra notebooks --extra onnx --extra openvino-int8 --extra otel --extra rest \
		--extra tensorboard -o requirements/all.txt

pin-images:  ## digests of the container images, which docker asks their registries for
	$(PYTHON) serving/pin_images.py

sbom: $(VENV)/demo.stamp  ## the packages of .venv as CycloneDX, in build/sbom.json
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8'
	mkdir -p build
	$(VENV)-sbom/bin/cyclonedx-py environment $(BIN)/python --output-reproducible \
		--output-format JSON --output-file build/sbom.json

clean:
	rm -rf build dist *.egg-info $(VENV) $(VENV)-*

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "cnnkit needs Python 3.11, 3.12 or 3.13 with venv: \
	install one, or name it with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python $(DECLARED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report]'
	touch $@

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

$(VENV)/docs.stamp: $(BIN)/python $(DECLARED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/notebooks.stamp: $(BIN)/python $(DECLARED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	touch $@

$(LIGHT)/light.stamp: serving/client-requirements.txt client/setup.cfg $(DECLARED)
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-r serving/client-requirements.txt grpcio-health-checking hypothesis ml_dtypes pytest \
		pytest-timeout trustme
	touch $@

$(VENV)/dev.stamp: $(BIN)/python $(DECLARED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/demo.stamp $@
