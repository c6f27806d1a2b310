"""What a process holds of many long rows: a few MiB, whatever their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.models import save_model

ROOT = Path(__file__).parents[3]
MOST = 200  # MiB of a process's own memory above what imports take
# What 3,000 rows may take above 200: their texts alone have 90 MB, and as lists of ids ten times that. pyarrow holds
# some 80 MiB of a large row group, whatever its size; all that follows is the same code for both formats.
GROWTH = {"jsonl": 40, "parquet": 120}

STAGES = """
import json, os, sys, threading, time
from hydra import compose, initialize_config_dir
from klear_lab import pipeline, sft, stages
from klear_lab.config import register
from klear_lab.validation import parse

def own_memory():
    # Pages of mapped files don't count: the kernel drops them as soon as anything else needs their memory.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

def watch():
    while True:
        taken.append(own_memory())
        time.sleep(0.005)

def trained(state, examples, settings):
    batch = sft.choose_batch(examples, settings, 1)
    print(json.dumps({"rows": len(examples), "batch": len(batch), "mib": max(taken) - taken[0]}), flush=True)
    os._exit(0)

register()
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    composed = compose("config", overrides=sys.argv[2:])
config = parse(composed)
sft.train_step = trained
taken = [own_memory()]
threading.Thread(target=watch, daemon=True).start()
pipeline.run_pipeline(config, composed)
"""


def write_source(path, rows):
    """Writes rows of 30 KB, as Parquet in one row group, like what pandas writes of up to a million rows."""
    about = {"source": "a", "teacher": "b", "difficulty": 0.5, "correct": True}
    steps = [f"{i}+{i % 7}=7;" for i in range(5000)]
    made = (
        {"prompt": f"{i}?", "response": f"<think>{' '.join(steps[i % 900 : i % 900 + 3500])}</think>{i}", **about}
        for i in range(rows)
    )
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in made)
    else:
        pq.write_table(pa.Table.from_pylist([*made]), path, row_group_size=rows)


def start(folder, name):
    """Starts a run in a process of its own, up to its first SFT step; returns what it took."""
    given = ["data_source=file", f"data_source.sft.files=[{folder / name}]", "data.sft_rows=null", "rl.steps=0"]
    given += ["scale=smoke", "logger=none", "progress=off", "model=path", f"model.path={folder / 'model'}"]
    given += [f"runs_dir={folder / 'runs'}", "sft.batch_sequences=64", "sft.max_tokens=100000"]
    command = [sys.executable, "-c", STAGES, ROOT / "conf", *given]
    made = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    return json.loads(made.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_preparing_tokenizing_and_a_batch_take_no_more_memory_for_more_rows(tmp_path, suffix):
    save_model(tmp_path / "model", positions=100_000)
    taken = {}
    for rows in (200, 3000):
        write_source(tmp_path / f"{rows}.{suffix}", rows)
        first, second = start(tmp_path, f"{rows}.{suffix}"), start(tmp_path, f"{rows}.{suffix}")
        assert (first["rows"], first["batch"]) == (rows, 64)
        taken[rows] = max(first["mib"], second["mib"])
    assert max(taken.values()) < MOST
    assert taken[3000] < taken[200] + GROWTH[suffix]
