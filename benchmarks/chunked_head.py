"""What the output head costs in a training step: time, and memory a token, in chunks and with all logits at once.

    python benchmarks/chunked_head.py [--tokens 512] [--vocabulary 151936] [--hidden 256] [--device cpu]

Each way computes the log-probability of every token and its gradients for hidden states and weight, in float32,
from the same hidden states; the ways take turns. `chunked` and `plain` give the entropy too; Liger's kernel gives
the loss alone, and is left out where `liger_kernel` isn't installed. The CPU's times are those of one thread. Peak
memory is what a pass holds beyond hidden states, weight and the weight's gradient.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from klear_lab.policy.chunked_head import chunked_log_probs, count_chunks
from klear_lab.policy.log_probs import plain_log_probs

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """The loss from all logits at once."""
    return -plain_log_probs(hidden_NH @ weight_VH.T, target_N, 1.0)[0].mean()


def chunked(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """The loss as training computes it."""
    return -chunked_log_probs(hidden_NH, weight_VH, None, target_N)[0].mean()


def liger(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """The loss from Liger's kernel."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(weight_VH, hidden_NH, target_N)


def measure_time(train: Callable[[], None], cuda: bool) -> float:
    """Milliseconds of one forward and backward pass; on the CPU, processor time, which other work changes less."""
    if not cuda:
        started = time.process_time()
        train()
        return (time.process_time() - started) * 1e3
    torch.cuda.synchronize()
    started = time.perf_counter()
    train()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def measure_peak(train: Callable[[], None], cuda: bool) -> int:
    """The most bytes that the tensors of one pass hold at once, beyond those of before."""
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    memory = [event["args"] for event in events if event["name"] == "[memory]"]
    return max(m["Total Allocated"] for m in memory) - (memory[0]["Total Allocated"] - memory[0]["Bytes"])


def main() -> None:
    """Prints one line a way: median and range over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 512), ("vocabulary", 151_936), ("hidden", 256), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Way] = {"plain": plain, "chunked": chunked}
    if find_spec("liger_kernel"):
        ways["liger"] = liger
    torch.manual_seed(0)
    hidden_NH = torch.randn(a.tokens, a.hidden, device=a.device, requires_grad=True)
    weight_VH = (torch.randn(a.vocabulary, a.hidden, device=a.device) * a.hidden**-0.5).requires_grad_()
    target_N = torch.randint(a.vocabulary, (a.tokens,), device=a.device)
    cuda = hidden_NH.is_cuda

    def train(way: Way) -> None:
        hidden_NH.grad = weight_VH.grad = None
        way(hidden_NH, weight_VH, target_N).backward()

    peaks = {}
    for name, way in ways.items():
        train(way)
        hidden_NH.grad = weight_VH.grad = None
        peaks[name] = (measure_peak(partial(train, way), cuda) - weight_VH.nbytes) / a.tokens
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(a.repeats):
        for name, way in ways.items():
            times[name].append(measure_time(partial(train, way), cuda))
    chunks = count_chunks(a.tokens * a.vocabulary)
    print(f"{a.tokens} tokens, vocabulary {a.vocabulary}, hidden size {a.hidden}, {a.device}, {chunks} chunks")
    print(f"{'':10}{'ms (range)':>26}{'of plain':>10}{'bytes a token':>16}{'of V':>8}")
    for name, found in times.items():
        middle = statistics.median(found)
        spread = f"{middle:.1f} ({min(found):.1f} to {max(found):.1f})"
        relative = middle / statistics.median(times["plain"])
        print(f"{name:10}{spread:>26}{relative:>10.2f}{peaks[name]:>16,.0f}{peaks[name] / a.vocabulary:>8.2f}")
    if "liger" not in ways:
        print("liger: liger_kernel isn't installed")


if __name__ == "__main__":
    main()
