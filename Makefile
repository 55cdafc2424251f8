# The commands of the project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# The tests start many processes: modules are compiled once, not by each of them.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-slurm check format wheel-check peers test-peers bench agreement clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "robusteval needs Python 3.11 to 3.13, and %s is %d.%d; name another one: make PYTHON=python3.12" % (sys.executable, *v))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test,check]'
	@touch $@

demo: $(VENV)/.installed ## install, then evaluate a real network on real images
	$(BIN)/python -m robusteval

test: $(VENV)/.installed ## all tests but the long ones
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed ## the long tests: faults, larger networks
	$(BIN)/python -m pytest -m slow

test-slurm: $(VENV)/.installed ## sweeps on a real Slurm, which is brought up and taken down (Debian, root)
	$(PYTHON) tests/slurm/cluster.py $(BIN)/python -m pytest -m slurm -n 0

check: $(VENV)/.installed ## lint and types
	$(BIN)/ruff check robusteval hydra_plugins tests attacks conf
	$(BIN)/ruff format --check robusteval hydra_plugins tests attacks conf
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed ## lay the code out
	$(BIN)/ruff check --fix robusteval hydra_plugins tests attacks conf
	$(BIN)/ruff format robusteval hydra_plugins tests attacks conf

wheel-check: $(VENV)/.installed ## sdist, wheel, a clean environment, a run from another folder
	PYTHON=$(BIN)/python tests/wheel-check.sh

# The attacks of other libraries, in an environment of their own, since torchattacks and robustbench hold packages at old
# versions. Both without their dependencies for that reason, and robustbench last: torchattacks' wheel brings an old copy
# of it along. robustbench needs the pkg_resources of an older setuptools.
$(PEERS)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test,foolbox,autoattack]' \
		'adversarial-robustness-toolbox>=1.20' 'setuptools<81' torchdiffeq geotorch gdown pandas Jinja2 tqdm requests
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'torchattacks>=3.5.1'
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'robustbench>=1.1.1'
	@touch $@

peers: $(PEERS)/.installed ## a second environment, with the other libraries

test-peers: $(PEERS)/.installed ## our attacks against the other libraries' own
	$(PEERS)/bin/python -m pytest -m peers

ROWS ?= all
BENCH ?=
bench: $(PEERS)/.installed ## speed side by side with the other libraries: ROWS='pgd aa', BENCH='--n 50 --pairs 5'
	OMP_NUM_THREADS=1 $(PEERS)/bin/python tests/bench --rows $(ROWS) $(BENCH)

agreement: $(PEERS)/.installed ## AutoAttack against its authors' code, hours: BENCH='--cases mnist_l2 --seeds 0 1 2'
	OMP_NUM_THREADS=1 $(PEERS)/bin/python tests/bench/agreement.py $(BENCH)

clean: ## remove what these commands made, but not the runs
	rm -rf $(VENV) $(PEERS) dist .pytest_cache .ruff_cache
