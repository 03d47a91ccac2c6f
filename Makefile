# Two commands on a fresh machine: `make book` and `make test`. Everything else is a part of them or a convenience.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help book strict pdf test lint study paper gpu bench zoo lock sums clean

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
TORCH_INDEX ?=
ROOM ?= $(if $(TORCH_INDEX),3,10)# GB
SETS ?= learn-* quick-*
SPHINX ?=
MODELS ?= resnet56 densenet22 vgg16
DEVICE ?= cuda
WORKERS ?= 1
MINUTES ?= 10
ARGS ?=
BIN := $(VENV)/bin
ENV := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

book: $(ENV) ## execute the notebooks that changed (SETS="learn-* quick-*"), then build the book
	@$(BIN)/python notebooks/execute.py $(foreach set,$(SETS),'$(set)')
	@$(BIN)/jupyter-book build $(SPHINX) .
	@$(BIN)/python book/slides.py
	@echo "the book: _build/html/index.html"

strict: ## the same, every page anew, a warning is an error
	@$(MAKE) --no-print-directory book SPHINX="--all -W --keep-going"

pdf: book ## the book as one PDF, printed by Chromium
	@$(BIN)/python book/pdf.py

test: $(ENV) ## all tests, then every notebook by nbval, a process a core (ARGS="-m 'not slow'" for pytest)
	@# files in the order of their names: by xdist's order the last ones, few tests but slow, would run on one core
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)
	@echo "the notebooks by nbval: a first time makes the runs of the quick study, which the book then shares"
	@DPES_DATA="$${DPES_DATA:-$(CURDIR)/data}" DPES_RUNS="$(CURDIR)/data/runs" OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n auto --dist loadfile --nbval-lax --nbval-current-env notebooks

lint: $(ENV) ## ruff, its format, and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

study: $(ENV) ## the runs of the profile cpu on CIFAR-10 and their rivals, two at a time: hours, many if a network is trained first
	@for model in $(MODELS); do \
	  $(BIN)/python -m dpes train --profile cpu --model $$model --threads 2 && \
	  $(BIN)/python -m dpes run --profile cpu --model $$model --threads 1 --workers 2 && \
	  $(BIN)/python -m dpes rivals "$$($(BIN)/python -m dpes where --profile cpu --model $$model)" \
	    $$([ $$model != resnet56 ] || echo --widths --masks 9) --threads 1 --workers 2 || exit; \
	done

paper: $(ENV) ## the paper's seven networks on CIFAR-10 and CIFAR-100, in pieces of ten minutes that continue: DEVICE=cuda WORKERS=2
	@until $(BIN)/python benchmarks/paper.py --device $(DEVICE) --workers $(WORKERS) --minutes $(MINUTES) $(ARGS); do [ $$? = 3 ] || exit; done

gpu: $(ENV) ## four minutes on a GPU: whether it computes what the CPU does, and how fast; writes benchmarks/gpu.json
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

bench: $(ENV) ## measure what a search costs beside its forward passes, and write the page (ARGS="build half" for some rows)
	@$(BIN)/python benchmarks/speed.py $(ARGS)

zoo: $(ENV) ## trace, prove and cut the classifiers of torchvision and timm that benchmarks/zoo.json lacks, two at a time
	@$(BIN)/python benchmarks/zoo.py --workers 2

lock: ## renew requirements.lock from pyproject.toml (UV_FLAGS=--upgrade moves all versions)
	@$(BIN)/uv pip compile pyproject.toml --universal --all-extras --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --annotation-style line --custom-compile-command "make lock" -q -o requirements.lock $(UV_FLAGS)

sums: ## renew data/SHA256SUMS, the checksums of published results
	@cd data && git ls-files runs baselines arena published.csv | grep -v timing.jsonl | LC_ALL=C sort | xargs sha256sum > SHA256SUMS

clean: ## remove what was built; the environment, data and runs stay
	@rm -rf _build build .pytest_cache .ruff_cache .mypy_cache .hypothesis dpes.egg-info
	@find dpes tests notebooks -name __pycache__ -prune -exec rm -rf {} +

$(ENV): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("dpes needs Python 3.11 or newer, $(PYTHON) is %d.%d: name another, as in make book PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/pip || $(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; free > $(ROOM) or sys.exit(f"the environment needs $(ROOM) GB of disk, {free:.1f} GB are free here: make room, or take a smaller PyTorch (README)")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make environments: install its venv package (Debian, Ubuntu: python3-venv)"; exit 1; }
	@echo "installing the locked versions into $(VENV) (with CUDA several GB; see README for a smaller PyTorch)"
	@# from an index of other builds PyTorch comes first and by its version alone; the lock then leaves it and CUDA out
	@mkdir -p build && awk '/^[a-z0-9]/ {drop = "$(TORCH_INDEX)" && /^(torch==|torchvision==|triton==|nvidia-|cuda-)/} !drop' requirements.lock > build/requirements.txt
	@test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install $(PIP_FLAGS) --index-url "$(TORCH_INDEX)" $$(grep -oE '^torch(vision)?==[^ ]+' requirements.lock)
	@set -o pipefail; $(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --require-hashes -r build/requirements.txt \
	  | awk '/Downloading .*[MG]B\)/ || /^Installing collected/ {print "  " substr($$0, 1, 100); fflush()}'
	@$(BIN)/python -m pip install $(PIP_FLAGS) -q --no-deps -e .
	@touch $@
