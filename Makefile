# Every command of a checkout. Each target prepares .venv by itself when that is needed.
#
#   PYTHON=python3.12                 the interpreter that .venv is made with (3.11 or newer)
#   TORCH_INDEX=URL                   another package index for torch and torchvision alone
#   RESULTS=DIR                       where quickstart keeps its records and its page

PYTHON      ?= python3
TORCH_INDEX ?=
RESULTS     ?= results

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready

# The stamp says that the installation ended; it counts for nothing without a working interpreter.
WORKS := $(shell $(PY) -c 'print("yes")' 2>/dev/null)
ifneq ($(WORKS),yes)
.PHONY: $(READY)
endif

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow lint report

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## install all that the other commands need, into .venv
	@echo "$(VENV) is ready: $$($(PY) --version), for $(CURDIR)"

quickstart: $(READY) ## run a small ablation on real images, then show its table and its page
	$(PY) -m ablations run depth --preset smoke --dataset digits --results "$(RESULTS)"
	$(PY) -m reports build --results "$(RESULTS)"
	@echo
	@echo "Open the page in a browser: $(abspath $(RESULTS))/report/index.html"

test: $(READY) ## run the tests that need no GPU and little time
	$(PY) -m pytest -m "not slow and not gpu"

test-slow: $(READY) ## run the tests that are marked slow
	$(PY) -m pytest -m slow

lint: $(READY) ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

report: $(READY) ## rebuild tables, figures and page from the records in reports/data
	$(PY) -m reports build

# torch and torchvision come first and together: they are nearly all of the download, they must fit
# each other, and TORCH_INDEX concerns them alone.
$(READY): pyproject.toml
ifneq ($(WORKS),yes)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "overconv needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/3] $(VENV): a new virtual environment, $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
else
	@echo "[1/3] $(VENV): kept, $$($(PY) --version)"
	@$(PY) -m pip --version > /dev/null 2>&1 || $(PY) -m ensurepip
endif
	@echo "[2/3] torch and torchvision (a CUDA build is several GB; TORCH_INDEX chooses another)"
	@$(PY) -c 'import tomllib; \
	  project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*(d for d in project["dependencies"] if d.startswith("torch")), sep="\n")' \
	  > $(VENV)/torch.txt
	@$(PY) -m pip install $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") \
	  --requirement $(VENV)/torch.txt
	@echo "[3/3] everything else, and overconv itself as an editable package"
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@
