"""What a process holds of many long rows: a few MiB, whatever their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.models import save_model

ROOT = Path(__file__).parents[3]
MOST = 200  # MiB above what imports take

STAGES = """
import json, os, sys
from hydra import compose, initialize_config_dir
from klear_lab import pipeline, sft
from klear_lab.config import register
from klear_lab.data.k_center import embed
from klear_lab.validation import parse

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024

def trained(state, examples, settings):
    batch = sft.choose_batch(examples, settings, 1)
    print(json.dumps({"rows": len(examples), "batch": len(batch), "mib": memory("VmHWM") - baseline}), flush=True)
    os._exit(0)

register()
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    composed = compose("config", overrides=sys.argv[2:])
config = parse(composed)
sft.train_step = trained
baseline = memory("VmRSS")
pipeline.run_pipeline(config, composed)
"""


def write_source(path, rows, size):
    with path.open("w") as file:
        for i in range(rows):
            row = {"prompt": f"{i}?", "source": "a", "teacher": "b", "difficulty": 0.5, "correct": True}
            file.write(json.dumps({**row, "response": f"<think>{'7+5=2; ' * (size // 7)}</think>{i}"}) + "\n")


def start(folder, *settings):
    given = [
        "data_source=file",
        f"data_source.sft.files=[{folder / 'rows.jsonl'}]",
        "data.sft_rows=null",
        "rl.steps=0",
    ]
    given += ["scale=smoke", "logger=none", "progress=off", "model=path", f"model.path={folder / 'model'}"]
    given += [f"runs_dir={folder / 'runs'}", "sft.batch_sequences=64", "sft.max_tokens=100000", *settings]
    command = [sys.executable, "-c", STAGES, ROOT / "conf", *given]
    made = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    return json.loads(made.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_preparing_tokenizing_and_a_batch_take_no_more_memory_for_more_rows(tmp_path):
    save_model(tmp_path / "model", positions=100_000)
    write_source(tmp_path / "rows.jsonl", 10_000, 30_000)  # 300 MB, 2.5 times that as Python's strings and ids
    first = start(tmp_path)
    assert (first["rows"], first["batch"]) == (10_000, 64) and first["mib"] < MOST
    assert start(tmp_path)["mib"] < MOST
