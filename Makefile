# The commands of the project; `make` alone lists them. Each works in a fresh clone, because it first makes .venv and
# installs into it. It installs again only after pyproject.toml has changed.

# PYTHON makes .venv; if it is empty, tools/make-venv chooses an interpreter. GPU_PYTHON runs what needs the GPU.
PYTHON ?=
GPU_PYTHON ?= python3
# More arguments for the program that a command runs.
ARGS ?=
# The number of kills of `make torture`.
KILLS ?= 1000
# The number of processes that run the tests. 0 runs them in one process, for a debugger or in a fixed order.
TEST_WORKERS ?= auto

# An active environment or a PYTHONPATH must not leak into .venv.
VENV_PYTHON := env -u PYTHONHOME -u PYTHONPATH -u VIRTUAL_ENV .venv/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train examples learn test check lint types stubs notebooks mutants torture nightly gpu-check bench bench-ops bench-step bench-load bench-generate bench-speculative bench-serve bench-distributed bench-speedrun bench-llm bench-commits bench-gpu oracle clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

train: .venv/.installed-fast,gpt,plot,serve  ## train a GPT on tiny Shakespeare, evaluate it and print a sample of its text
	@$(VENV_PYTHON) -m gpt train shakespeare-char-cpu $(ARGS)

examples: .venv/.installed-fast,gpt,plot,serve  ## run what GPTs are for, whole, and write a table of results; ARGS="07" for one
	@$(VENV_PYTHON) benchmarks/run_examples.py $(ARGS)

learn: .venv/.installed-gpt,plot,testing  ## install what the chapters of docs/learn need, and say what to do next
	@$(VENV_PYTHON) -m tensorlite.learn $(ARGS)

test: .venv/.installed-test  ## run the tests; ARGS="-k matmul" and the like go to pytest
	@$(VENV_PYTHON) -m pytest -n $(TEST_WORKERS) --maxprocesses 8 --dist worksteal $(ARGS)

check: lint types test  ## run lint, types and test, which a change must pass

lint: .venv/.installed-dev  ## run ruff, and import-linter for the layers
	@$(VENV_PYTHON) -m ruff check .
	@.venv/bin/lint-imports --no-cache --no-logo

types: .venv/.installed-dev  ## run mypy --strict on tensorlite and gpt
	@$(VENV_PYTHON) -m mypy

stubs: .venv/.installed-dev  ## write the type stubs of the ops and of Tensor's methods, after a change of an op's signature
	@$(VENV_PYTHON) tools/make_stubs.py

notebooks: .venv/.installed-notebooks  ## write the chapters of docs/learn as Jupyter notebooks, into build/notebooks
	@$(VENV_PYTHON) tools/make_notebooks.py $(ARGS)

oracle: .venv/.installed-oracle  ## install PyTorch, so that the tests compare with it

mutants: .venv/.installed-test  ## count the wrong gradients that the checks find, and the right ones that they reject
	@$(VENV_PYTHON) -m tests.testing.mutants $(ARGS)

torture: .venv/.installed-test  ## kill small training runs 1,000 times, and compare what they resume to; KILLS=N
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m tests.torture --kills $(KILLS) $(ARGS)

nightly: .venv/.installed-test  ## run each property-based test on 2,000 new examples
	@TENSORLITE_TESTING_PROFILE=nightly $(VENV_PYTHON) -m pytest --gradtest-profile nightly -m hypothesis $(ARGS)

# This needs no network and no .venv, because the Python of a GPU machine has CuPy, NumPy and pytest.
define GPU_PROBE
import cupy, numpy, pytest; assert cupy.cuda.runtime.getDeviceCount(), "no CUDA device"
endef
gpu-check:  ## run the tests that compare a device with the CPU on the GPU, if there is one
	@if reason=$$($(GPU_PYTHON) -c '$(GPU_PROBE)' 2>&1); then \
	    $(GPU_PYTHON) -m pytest -q -m device --device cuda -p no:cacheprovider $(ARGS); \
	else \
	    echo "gpu-check: nothing to check, $(GPU_PYTHON) has no usable GPU:"; \
	    printf '%s\n' "$$reason" | tail -n 1; \
	fi

bench: override ARGS += --save
bench: bench-ops bench-step bench-generate bench-speedrun  ## run and save the benchmarks, on a machine that is idle

bench-ops: .venv/.installed-bench  ## measure the time of an op, small and large
	@$(VENV_PYTHON) benchmarks/bench_ops.py $(ARGS)

bench-step: .venv/.installed-bench  ## measure the time of a training step, against PyTorch
	@$(VENV_PYTHON) benchmarks/bench_step.py $(ARGS)

bench-load: .venv/.installed-bench  ## measure a training step next to a busy process, with a quota, on one core
	@$(VENV_PYTHON) benchmarks/bench_load.py $(ARGS)

bench-generate: .venv/.installed-bench  ## measure the time of a generated token, against PyTorch
	@$(VENV_PYTHON) benchmarks/bench_generate.py $(ARGS)

bench-speculative: .venv/.installed-bench  ## measure what a draft gains for a text, and a batch for conversations
	@$(VENV_PYTHON) benchmarks/bench_speculative.py $(ARGS)

bench-serve: .venv/.installed-bench,serve  ## measure the tokens a second of a server for 8 clients and for one
	@$(VENV_PYTHON) benchmarks/bench_serve.py $(ARGS)

bench-distributed: .venv/.installed-bench,mpi  ## measure a training step of 2 processes against one; ARGS=--link: on slow links
	@$(VENV_PYTHON) benchmarks/bench_distributed.py $(ARGS)

bench-speedrun: .venv/.installed-bench  ## measure the time of training to a loss, against nanoGPT's recipe on PyTorch
	@$(VENV_PYTHON) benchmarks/bench_speedrun.py $(ARGS)

bench-llm: .venv/.installed-bench,llama  ## measure a language model's speed, against llama.cpp
	@$(VENV_PYTHON) benchmarks/bench_llm.py $(ARGS)

bench-commits: .venv/.installed-bench  ## compare the speed of two commits: ARGS=BASE, or ARGS="BASE COMMIT"
	@$(VENV_PYTHON) benchmarks/compare_commits.py $(ARGS)

bench-gpu:  ## measure the time of a training step and of a token on the GPU, against PyTorch
	@PYTHONPATH=. $(GPU_PYTHON) benchmarks/bench_gpu.py $(ARGS)

clean:  ## remove .venv, builds and caches, but no file that training wrote
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find tensorlite gpt tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Remove the stamps if .venv has no interpreter, as after an upgrade, because its packages are then unusable.
$(shell test -x .venv/bin/python || rm -f .venv/.installed-*)

.venv/bin/python:
	@tools/make-venv $(if $(PYTHON),'$(PYTHON)')

# The name of a stamp is the list of extras that were installed.
.venv/.installed-%: pyproject.toml .venv/bin/python
	@echo "Installing tensorlite[$*] into .venv (a minute or two the first time)"
	@$(VENV_PYTHON) -c 'import pip' 2>/dev/null || $(VENV_PYTHON) -m ensurepip  # uv makes .venv without pip
	@$(VENV_PYTHON) -m pip install -qq --no-input --disable-pip-version-check --editable '.[$*]'
	@touch $@
