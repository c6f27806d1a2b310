"""Out of memory is one line that says which key to lower, and to what; freed memory stays with the process, in huge pages."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from klear_lab.config import OutOfMemory
from klear_lab.policy.memory import explained_memory, sampling_advice, training_advice
from klear_lab.rl import trainer
from klear_lab.sampling.transformers import TransformersSampler


def run_out(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_every_kind_of_it_is_told_in_one_line(error):
    message = "rollout: out of memory; lower x=4 to 2"
    with pytest.raises(OutOfMemory, match=message) as raised, explained_memory("rollout", "lower x=4 to 2"):
        raise error
    assert "\n" not in str(raised.value)


def test_the_systems_own_refusal_is_told_too():
    with pytest.raises(OutOfMemory), explained_memory("rollout", "lower it"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes differ") as raised, explained_memory("rollout", "lower it"):
        raise RuntimeError("shapes differ")
    assert not isinstance(raised.value, OutOfMemory)


def test_each_advice_leads_to_the_next(config):
    c = config()
    assert sampling_advice(c, "eval.batch_sequences", 512).startswith("lower eval.batch_sequences=512 to 256")
    assert "rl.max_response_tokens" in sampling_advice(c, "eval.batch_sequences", 1)
    assert "sampler.gpu_memory_utilization" in sampling_advice(config("sampler=vllm"), "eval.batch_sequences", 512)
    assert "set rl.micro_batch_tokens=8000" in training_advice(c, "rl", 1000, 16)
    assert "set sft.micro_batch_tokens=1000" in training_advice(c, "sft", 1000, 2)
    assert "model.gradient_checkpointing=true" in training_advice(c, "rl", 1000, 1)
    c = config("model.gradient_checkpointing=true")
    assert "optimizer=adamw_8bit" in training_advice(c, "rl", 1000, 1)
    c = config("model.gradient_checkpointing=true", "optimizer=adamw_8bit")
    assert "lower rl.max_response_tokens" in training_advice(c, "rl", 1000, 1)


@pytest.mark.parametrize(
    ("place", "name", "words"),
    [
        (TransformersSampler, "sample", r"evaluation: out of memory; lower eval.batch_sequences=\d+ to \d+"),
        (trainer, "backward", r"RL update: out of memory; set rl.micro_batch_tokens=\d+"),
        (torch.optim.AdamW, "step", "optimizer: out of memory; set optimizer=adamw_8bit"),
    ],
)
def test_a_run_ends_with_the_line(run, monkeypatch, place, name, words):
    monkeypatch.setattr(place, name, run_out)
    with pytest.raises(OutOfMemory, match=words):
        run("rl.drop_zero_advantage=false")


FAULTS = """
import resource, torch
from klear_lab.policy.memory import keep_freed_memory
keep_freed_memory()
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**20) for _ in range(30)]  # 120 MiB, 30,000 pages
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc alone")
def test_a_process_that_keeps_memory_asks_for_it_once():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # mostly 300,000 without it


HUGE_PAGES = """
import re, torch
from pathlib import Path
from klear_lab.policy.memory import keep_freed_memory
keep_freed_memory()
blocks = [torch.ones(2**20) for _ in range(16)]  # 64 MiB
print(re.search(r"AnonHugePages: +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1])
"""


def gives_huge_pages():
    choice = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return choice.exists() and "[never]" not in choice.read_text()


@pytest.mark.skipif(not gives_huge_pages(), reason="the kernel gives no huge pages to those who ask")
def test_its_next_memory_is_of_huge_pages():
    done = subprocess.run([sys.executable, "-c", HUGE_PAGES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 32 * 1024
