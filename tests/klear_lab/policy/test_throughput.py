"""Throughput: FLOPs against PyTorch's own count, peaks by the names of devices, and memory."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from klear_lab.policy import throughput
from klear_lab.policy.throughput import memory_metrics, peak_flops, training_flops, utilisation


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", 65e12),
        ("NVIDIA RTX A6000", 155e12),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("x86_64", None),
        ("", None),
    ],
)
def test_a_device_is_known_by_the_words_of_its_name(name, peak):
    assert peak_flops(name) == peak


def test_flops_without_attention_are_pytorchs_count(policy):
    ids = torch.arange(20).reshape(2, 10)
    with FlopCounterMode(display=False) as counter:
        policy.model(input_ids=ids).logits.sum().backward()
    # PyTorch counts the CPU's attention by kernel, in full or not at all, so it is compared by hand below.
    products = counter.get_flop_counts()["Global"]
    matrices = sum(count for kind, count in products.items() if "mm" in str(kind) and "bmm" not in str(kind))
    vectors = sum(p.numel() for p in policy.model.parameters() if p.dim() == 1)
    attention = training_flops(policy.model, [10, 10]) - throughput.flops_per_token(policy.model) * 20
    assert matrices == (throughput.flops_per_token(policy.model) - 6 * vectors) * 20
    heads, size = policy.model.config.num_attention_heads, policy.model.config.head_dim
    assert attention == 6 * 2 * heads * size * (10**2 + 10**2)


def test_a_frozen_parameter_saves_its_own_gradient(policy):
    whole = throughput.flops_per_token(policy.model)
    weight = policy.model.model.layers[0].mlp.down_proj.weight.requires_grad_(False)
    assert whole - throughput.flops_per_token(policy.model) == 2 * weight.numel()


def test_utilisation_is_flops_by_seconds_and_peak(policy, monkeypatch):
    assert utilisation(policy.model, [10], 1.0) is None  # a CPU
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(type(policy.model), "device", torch.device("cuda"))
    assert utilisation(policy.model, [10, 4], 0.5) == pytest.approx(
        training_flops(policy.model, [10, 4]) / 0.5 / 989e12
    )
    assert utilisation(policy.model, [], 0.5) is None


def test_a_cpu_has_no_device_memory_and_the_main_memory_is_what_the_process_holds():
    before = memory_metrics(torch.device("cpu"))
    assert before["perf/device_memory_gib"] is None
    if before["perf/main_memory_gib"] is None:
        pytest.skip("not Linux")
    held = torch.ones(64 * 2**20)
    after = memory_metrics(torch.device("cpu"))
    assert after["perf/main_memory_gib"] - before["perf/main_memory_gib"] == pytest.approx(0.25, abs=0.05)
    assert held.numel()
