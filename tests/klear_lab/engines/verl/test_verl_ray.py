"""launcher=ray, for real: Ray starts a process for each arm, and the sweep ends with a table of them all.

Its arms are dry runs of engine=verl. klear_lab's own sampler needs a newer transformers than verl allows, so no arm
trains in this environment; tests/klear_lab/test_many_machines.py has a sweep that does, where Ray is beside it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klear_lab.engines.verl.files import has_verl

ROOT = Path(__file__).parents[4]
SWEEP = """scale=smoke logger=none progress=off engine=verl dry_run=true engine.gpus_per_node=1 data.sft_rows=60
data.rl_rows=8 data.benchmark_rows=2 model.hidden_size=16 model.layers=2 rl.mini_batch_prompts=2
rl.micro_batch_sequences=4 sft.length_curriculum=0 launcher=ray hydra.launcher.ray.init.address=local""".split()


@pytest.mark.verl
@pytest.mark.skipif(not has_verl(), reason="verl has an environment of its own, with Ray: make test-verl")
def test_ray_runs_each_arm_in_a_process_of_its_own_and_one_that_fails_stops_no_other(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "VERL_PLATFORM"}  # the tests' own
    finished = subprocess.run(
        [sys.executable, "-m", "klear_lab.run", *SWEEP, "data.sft_budget=1000,20", "-m"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode == 1
    assert "1 of 2 arms failed; the same command tries them again" in said
    assert "Traceback" not in said
    (place,) = (tmp_path / "runs" / "sweeps").iterdir()
    arms = [json.loads(file.read_text()) for file in sorted(place.glob("arm-*.json"))]
    assert [arm["status"] for arm in arms] == ["failed", "written"]
    written = [file.parent for file in (tmp_path / "runs").glob("*/verl/train.sh")]
    assert [folder.name for folder in written] == ["verl"]
    assert (written[0] / "complete.yaml").exists()  # verl's own classes took it, in Ray's process
