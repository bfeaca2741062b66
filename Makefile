# `make demo` and `make test` do the whole set-up on a fresh machine: Python 3.11 or newer and a package registry
# are all they need. Both can be run again at any time.

VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(shell command -v uv || echo $(VENV)/bin/uv)

.PHONY: demo test lint lock clean

demo: $(VENV)/.installed
	$(VENV)/bin/anomaly demo --out demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Pins and hashes of every dependency, without the address of any index.
lock:
	$(UV) pip compile pyproject.toml --extra anomalib --extra bench --extra openvino --extra postgresql --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --quiet -o requirements.lock

clean:
	rm -rf $(VENV) demo dist

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	test -x "$(UV)" || $(PYTHON) -m pip install --quiet uv
	"$(UV)" pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes -r requirements.lock
	"$(UV)" pip install --quiet --python $(PYTHON) --no-deps --editable .
	touch $@
