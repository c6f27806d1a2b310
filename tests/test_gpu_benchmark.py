"""benchmarks/gpu.py: every part works on a CPU in small, what can't be measured says why, and its page is generated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_parts.tables import NOTHING, TITLES, page

ROOT = Path(__file__).parents[1]
MAY_BE_MISSING = ("not installed", "liger_kernel isn't installed")
WORDS = {"killed with SIGKILL", "the resumed run", "a step"}  # rows without a number


def run(out, *words):
    """What gpu.json holds after a call."""
    command = [sys.executable, "benchmarks/gpu.py", "--small", "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "gpu.json").read_text())


def values(part):
    return {row["what"]: row["value"] for row in part["rows"]}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return run(tmp_path_factory.mktemp("gpu"), "--device", "cpu")


@pytest.mark.slow
def test_every_part_measures_what_is_installed_and_names_what_is_not(parts):
    assert [*parts] == [*TITLES]
    texts = {what: v for part in parts.values() for what, v in values(part).items() if isinstance(v, str)}
    assert not {what: v for what, v in texts.items() if what not in WORDS and v not in MAY_BE_MISSING}
    for part in parts.values():
        assert any(isinstance(v, float) for v in values(part).values()) or part is parts["vllm"]
        assert part["command"].startswith("python benchmarks/gpu.py ") and torch.__version__ in part["machine"]


@pytest.mark.slow
def test_a_killed_and_resumed_command_ends_with_the_metrics_of_an_undisturbed_one(parts):
    assert values(parts["command"])["the resumed run"] == "finished"
    assert values(parts["command"])["largest difference of final metrics (all equal)"] == 0.0


@pytest.mark.slow
def test_both_cuts_of_the_update_are_measured(parts):
    found = values(parts["update"])
    assert found["256 tokens a micro-batch: padding"] <= 5 < found["8 sequences a micro-batch: padding"]
    assert found["8 sequences a micro-batch"] > 0 and found["256 tokens a micro-batch"] > 0


@pytest.mark.slow
def test_adamw_takes_16_bytes_a_parameter_and_8_bit_states_save_most_of_its_own(parts):
    found = values(parts["long"])
    assert found["optimizer=adamw: weights, gradients, states"] == pytest.approx(16, abs=0.1)
    assert found["optimizer=adamw_8bit: weights, gradients, states"] < 11


def test_a_part_without_time_says_so(tmp_path):
    parts = run(tmp_path, "--device", "cpu", "--seconds", "1", "--parts", "sampler")
    assert values(parts["sampler"])["the rest"].startswith("not started")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_fails_leaves_its_reason_and_the_next_part_starts(tmp_path):
    parts = run(tmp_path, "--device", "cuda", "--parts", "head")
    assert [*parts] == ["model", "head"]
    assert all("CUDA" in values(part)["failed"] for part in parts.values())


def test_numbers_of_a_cpu_never_reach_the_page_of_the_repository():
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--out" in done.stderr


def test_the_page_is_what_the_numbers_give():
    numbers = ROOT / "benchmarks" / "gpu.json"
    parts = json.loads(numbers.read_text()) if numbers.exists() else {}
    assert (ROOT / "benchmarks" / "gpu.md").read_text() == page(parts)
    assert (NOTHING in page(parts)) == (not parts)


def test_a_goal_is_met_or_missed():
    row = {"what": "seconds", "value": 119.0, "unit": "s", "at_most": 120}
    part = {"command": "c", "date": "d", "seconds": 1.0, "machine": "m"}
    met, missed = (page({"long": {**part, "rows": [{**row, "value": v}]}}) for v in (119.0, 121.0))
    assert "| 119 s | at most 120 s: met |" in met and "| 121 s | at most 120 s: missed |" in missed
