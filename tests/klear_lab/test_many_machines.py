"""Sweeps that several processes, hosts and launchers share: each arm is made once, and a killed start loses none."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException
from joblib import Parallel, delayed

from klear_lab import launchers
from klear_lab.launchers import free_gpu, take_gpu
from klear_lab.validation import explain

ROOT = Path(__file__).parents[2]
ARMS = ["scale=smoke", "logger=none", "clip_method=gppo,cispo", "seed=0,1"]
ELSEWHERE = "another process works on this arm"
NAMESPACES = ["unshare", "--net", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']


def hosts_can_be_made():
    """Namespaces with a host name and a network of their own, which root may make on most machines."""
    try:
        return subprocess.run([*NAMESPACES, "one", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def start(folder, *words, before=(), name="messages"):
    """Starts a sweep; its messages go to a file, which a process that is killed leaves readable."""
    with (folder / name).open("w") as messages:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "klear_lab.run", *words, "-m"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stderr=messages,
            stdout=messages,
        )


@pytest.fixture
def started():
    """Processes that a failed test leaves behind are ended."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def wait_for(happened, *processes):
    while not happened():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def outcomes(folder):
    """The tables of all starts of a sweep, without what each took of its time."""
    tables = []
    for place in sorted((folder / "runs" / "sweeps").iterdir()):
        arms = [json.loads(file.read_text()) for file in sorted(place.glob("arm-*.json"))]
        tables.append([{key: arm[key] for key in arm if key != "seconds"} for arm in arms])
    return tables


def runs(folder):
    return [file.parent for file in sorted((folder / "runs").glob("*/run.json"))]


def assert_each_arm_was_made_once(folder, messages):
    for run in runs(folder):
        assert messages.count(f"[{run.name}] finished already") == 1
        rl_steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in rl_steps if line["stage"] == "rl"] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [False, True], ids=["one host", "two hosts"])
def test_two_starts_of_one_sweep_make_each_arm_once_and_end_with_one_table(tmp_path, started, hosts):
    if hosts and not hosts_can_be_made():
        pytest.skip("no network namespaces here: they need root, and a kernel that lets it make them")
    for name in ("one", "two"):
        started.append(start(tmp_path, *ARMS, before=[*NAMESPACES, name] if hosts else [], name=name))
    messages = [(tmp_path / name, process.wait())[0].read_text() for name, process in zip(("one", "two"), started)]
    assert [process.returncode for process in started] == [0, 0], messages
    first, second = outcomes(tmp_path)
    assert first == second
    assert [arm["status"] for arm in first] == ["finished"] * 4
    assert len(runs(tmp_path)) == 4
    assert_each_arm_was_made_once(tmp_path, "".join(messages))


@pytest.mark.slow
def test_a_start_takes_the_free_arms_then_goes_on_with_that_of_one_that_was_killed(tmp_path, started):
    words = [*ARMS[:2], "rl.steps=20", "seed=0,1"]
    killed = start(tmp_path, *words, name="killed")
    started.append(killed)
    wait_for(lambda: [*(tmp_path / "runs").glob("*/checkpoint.pt")], killed)
    killed.send_signal(signal.SIGSTOP)  # it holds its arm, and gets no further
    (arm,) = runs(tmp_path)
    other = start(tmp_path, *words)
    started.append(other)
    wait_for(lambda: sum((run / "model").exists() for run in runs(tmp_path)) == 1, other)
    assert not (arm / "model").exists()
    killed.kill()
    assert other.wait() == 0, (tmp_path / "messages").read_text()
    messages = (tmp_path / "messages").read_text()
    assert ELSEWHERE in messages and "finished already" not in messages
    assert "RL: 20 steps" not in messages.split(f"{ELSEWHERE}")[0]
    assert all((run / "model").exists() for run in runs(tmp_path)) and len(runs(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "module", "settings"),
    [
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", []),
        ("ray", "hydra_plugins.hydra_ray_launcher", ["hydra.launcher.ray.init.address=local"]),
    ],
)
def test_a_launcher_trains_the_arms_and_ends_with_a_table(tmp_path, started, launcher, module, settings):
    if find_spec(module) is None:
        pytest.skip(f"launcher={launcher} isn't installed here; docs/running.md says how")
    process = start(tmp_path, *ARMS[:2], "data.sft_budget=1000,100", f"launcher={launcher}", *settings)
    started.append(process)
    assert process.wait() == 1
    messages = (tmp_path / "messages").read_text()
    assert "1 of 2 arms failed; the same command tries them again" in messages
    assert [arm["status"] for arm in outcomes(tmp_path)[0]] == ["failed", "finished"]
    assert "Traceback" not in messages


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("submitit_slurm", "pip install -e '.[cluster]'"),
        ("ray", "pip install -e '.[ray]', then pip install --no-deps hydra-ray-launcher==1.2.2"),
    ],
)
def test_a_launcher_that_is_not_installed_is_one_line_with_the_steps_of_the_docs(name, steps):
    error = MissingConfigException("In 'config': Could not find ...", missing_cfg_file=f"hydra/launcher/{name}")
    assert explain(error) == f"launcher={name}: its package isn't installed here; in the checkout, {steps}"
    page = (ROOT / "docs" / "running.md").read_text()
    assert all(f"`{step}`" in page for step in steps.split(", then "))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line(tmp_path, started):
    sweep = start(tmp_path, *ARMS[:2], "rl.steps=400", "seed=0,1", "launcher=joblib")
    started.append(sweep)
    wait_for(lambda: [*(tmp_path / "runs").glob("*/checkpoint.pt")], sweep)
    workers = subprocess.check_output(["pgrep", "-P", str(sweep.pid), "-f", "popen_loky_posix"], text=True)
    os.kill(int(workers.split()[0]), signal.SIGKILL)
    assert sweep.wait() == 1
    messages = (tmp_path / "messages").read_text()
    assert "a process that ran an arm was lost (" in messages
    assert "the same command goes on from the last checkpoints" in messages
    assert "Traceback" not in messages


def test_processes_share_gpus_evenly_and_leave_them_when_they_end(tmp_path):
    taken = [free_gpu(["3", "5"], tmp_path) for _ in range(5)]
    assert [gpu for gpu, _ in taken] == ["3", "5", "3", "5", "3"]
    taken[1][1].release()
    assert free_gpu(["3", "5"], tmp_path)[0] == "5"


def own_gpu(folder):
    gpu, lock = free_gpu(["0", "1"], folder)
    time.sleep(0.5)
    lock.release()
    return os.getpid(), gpu


def test_two_workers_of_joblib_take_two_gpus(tmp_path):
    found = Parallel(n_jobs=2)(delayed(own_gpu)(tmp_path) for _ in range(2))
    assert len(set(found)) == 2 and {gpu for _, gpu in found} == {"0", "1"}


@pytest.mark.parametrize(
    ("named", "count", "device", "seen"),
    [
        ("4,7", 2, "auto", "4"),
        ("4,7", 2, "cpu", "4,7"),
        ("4,7,9", 1, "cuda", "4,7,9"),  # CUDA finds one of them
        (None, 2, "cuda", "0"),
        (None, 0, "auto", None),
    ],
)
def test_an_arm_sees_one_of_several_gpus(monkeypatch, tmp_path, named, count, device, seen):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(launchers, "_held", [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    take_gpu(device)
    take_gpu(device)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
