"""The page benchmarks/gpu.md, from what benchmarks/gpu.json holds."""

import textwrap
from typing import Any

COMMAND = "python benchmarks/gpu.py"
# What each part is, in the page's order.
TITLES = {
    "model": "The model: random weights in Qwen3-0.6B's shape, in bfloat16 on disk",
    "command": "`python -m klear_lab.run`: SFT, RL and evaluation, killed and gone on with",
    "sampler": "sampler=transformers: 128 prompts, 8 responses of 1,024 tokens to each",
    "vllm": "sampler=vllm: the same requests",
    "head": "The output head: one forward and backward pass over 8,192 tokens in float32",
    "long": "One sequence of 32,768 tokens with model.gradient_checkpointing=true, and the optimizers",
    "update": "The RL update on 128 responses of 64 to 4,096 tokens, checkpointed, by its micro-batches",
    "trl": "The RL loop beside TRL's GRPOTrainer",
}
INTRODUCTION = f"""\
# What one GPU does
This page is for readers who want to know what a run of a real model takes. `{COMMAND}` measures it on one
CUDA device, in under 8 minutes and without a network, and writes this page and `gpu.json`. `--parts head,long`
measures some parts and leaves the others as they are. Each part has a process and a time limit of its own; what
failed or was cut has its reason in its row. GB are 10^9 bytes.
"""
NOTHING = "**No GPU run has been made yet**, so the tables are empty."


def page(parts: dict[str, Any]) -> str:
    """Returns the page for the parts that were measured, by name."""
    blocks = [INTRODUCTION if parts else f"{INTRODUCTION}\n{NOTHING}\n"]
    return "\n".join([*blocks, *(section(name, parts.get(name)) for name in TITLES)])


def section(name: str, part: dict[str, Any] | None) -> str:
    """Returns one part's heading, command and table."""
    lines = [f"## {TITLES[name]}"]
    if part is None:
        lines.append(f"`{COMMAND} --parts {name}` (not measured yet)")
    else:
        told = f"`{part['command']}` ({part['date']}, {part['seconds']:.0f} s; {part['machine']})"
        lines += textwrap.wrap(told, 119, break_on_hyphens=False)
    lines += ["", "| | | goal |", "|---|---|---|"]
    for row in [] if part is None else part["rows"]:
        lines.append(f"| {row['what']} | {shown(row['value'], row['unit'])} | {goal(row)} |")
    return "\n".join(lines) + "\n"


def shown(value: float | str | None, unit: str) -> str:
    """Returns a number with its unit."""
    if value is None:
        return "no such number on a CPU"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if value == 0 or 1e-3 <= abs(value) < 1e15:
        digits = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    else:
        digits = f"{value:.2e}"
    return f"{digits} {unit}".strip()


def goal(row: dict[str, Any]) -> str:
    """Returns a row's goal and whether it is met."""
    if row["at_most"] is None:
        return ""
    met = isinstance(row["value"], int | float) and row["value"] <= row["at_most"]
    return f"at most {row['at_most']} {row['unit']}: {'met' if met else 'missed'}"
