"""What tests of whole runs share: the smallest sizes, and when two runs are the same bit for bit."""

import pandas as pd
import torch
from safetensors.torch import load_file

from klear_lab.storage.run_folder import RunFolder


def timeless(lines):
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "perf/"))} for line in lines]


def same_result(a: RunFolder, b: RunFolder):
    """Metrics (timings aside), probes, samples, token records, evaluations and weights, bit for bit."""
    assert timeless(a.metrics()) == timeless(b.metrics())
    assert a.lines("probes.jsonl") == b.lines("probes.jsonl")
    assert a.lines("samples.jsonl") == b.lines("samples.jsonl")
    records = [sorted(path.name for path in (f.path / "rollouts").glob("*")) for f in (a, b)]
    assert records[0] == records[1]
    for name in records[0]:
        left, right = (pd.read_parquet(f.path / "rollouts" / name) for f in (a, b))
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    pd.testing.assert_frame_equal(a.evaluations(), b.evaluations(), check_exact=True)
    left, right = (load_file(f.path / "model" / "model.safetensors") for f in (a, b))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


SIZES = """data.sft_rows=60 data.rl_rows=8 data.benchmark_rows=2 sft.steps=2 sft.length_curriculum=0
sft.batch_sequences=4 sft.micro_batch_sequences=4 rl.steps=1 rl.prompts_per_step=4 rl.responses_per_prompt=2
rl.mini_batch_prompts=2 rl.max_response_tokens=8 rl.drop_zero_advantage=false eval.samples=1""".split()

SMALL = """data.sft_rows=60 data.rl_rows=8 data.benchmark_rows=1 sft.length_curriculum=0 sft.batch_sequences=4
sft.micro_batch_sequences=4 rl.prompts_per_step=2 rl.responses_per_prompt=2 rl.mini_batch_prompts=1
rl.max_response_tokens=8 eval.samples=1 data.filter_rl=false""".split()
