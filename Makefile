# `make demo` and `make test` need Python 3.11+, pip and make; nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Files of tests, two at a time: what a file starts once is started once.
SIDE_BY_SIDE = -n 2 --dist loadfile --no-loadscope-reorder
INSTALL = -q -c constraints.txt -e ".[dev]"

# A Label Studio server to test against, in an environment of its own: 1 GB, a minute.
LABEL_STUDIO_VENV ?= .venv-label-studio

.PHONY: help demo test test-min test-others label-studio fuzz lint types docs check bench bench-gpu faults evidence reproduce clean

help:
	@echo "make demo      active learning on handwritten digits; curves and pictures in runs/demo"
	@echo "make test      all tests"
	@echo "make check     lint, types, tests and the strict docs build"
	@echo "make test-min  all tests on the oldest versions that pyproject.toml declares"
	@echo "make test-others  tests with transformers and tensorboard, in an environment of their own"
	@echo "make label-studio  tests against a real Label Studio server, which is installed apart and started on loopback"
	@echo "make fuzz      importers against 100,000 hostile files, from where it stopped; some ten minutes, see docs/fuzz.md"
	@echo "make bench     benchmarks of speed and memory; what they gave is in benchmarks/README.md"
	@echo "make bench-gpu what scoring and choosing cost on one NVIDIA GPU, some five minutes"
	@echo "make faults    kills runs 400 times, half of them on two processes; half an hour; goes on where it was stopped"
	@echo "make evidence  eight strategies on four data sets, ten seeds, and the default that follows (LIGHTNING_AL_DATA); an hour or two; goes on where it stopped"
	@echo "make reproduce figures of papers (LIGHTNING_AL_DATA names the folder that holds mnist/ and fashion_mnist/); hours"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(INSTALL)
	touch $@

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_FLAGS)

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

check: lint types test docs

test-min:
	$(MAKE) test VENV=.venv-min INSTALL='-q -c constraints-min.txt -e ".[test]"' PYTEST_FLAGS='-W default'

label-studio: $(VENV)/installed $(LABEL_STUDIO_VENV)/installed
	LABEL_STUDIO_VENV=$(LABEL_STUDIO_VENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m label_studio tests/label_studio

$(LABEL_STUDIO_VENV)/installed:
	test -x $(LABEL_STUDIO_VENV)/bin/python || $(PYTHON) -m venv $(LABEL_STUDIO_VENV)
	$(LABEL_STUDIO_VENV)/bin/python -m pip install -q "label-studio==1.23.2"
	touch $@

# In an environment of its own: torchmetrics imports transformers, where it is, into every process.
test-others:
	$(MAKE) .venv-others/installed VENV=.venv-others INSTALL='$(INSTALL) "transformers>=5.0" "tensorboard>=2.15"'
	OMP_NUM_THREADS=1 .venv-others/bin/python -m pytest tests/unit/plotting/test_logging.py tests/integration/test_guides.py

# Resumable: what was done is in runs/fuzz, and files that broke something.
fuzz: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --count 100000 --state runs/fuzz --summary docs/fuzz.md

bench: $(VENV)/installed
	for what in ledger k_center loader scores mc_dropout batch_bald learning_loss kmeans badge; do \
		OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$what.py || failed=1; \
	done; exit $${failed:-0}

bench-gpu: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py

# Resumable: what was done is in runs/faults.
faults: $(VENV)/installed
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.many --kills 200 --report docs/faults.md

# Resumable: what was done is in runs/evidence.
evidence: $(VENV)/installed
	$(BIN)/python -m benchmarks.evidence

# Resumable: what was done is in runs/reproduce.
reproduce: $(VENV)/installed
	$(BIN)/python benchmarks/dbal_mnist.py; dbal=$$?; \
	$(BIN)/python benchmarks/repeated_mnist.py; repeated=$$?; \
	$(BIN)/python benchmarks/fashion_learning_loss.py && test $$dbal = 0 && test $$repeated = 0

clean:
	rm -rf $(VENV) .venv-min .venv-others site runs
