"""Files that are lost, damaged or find no room outside the checkpoint: one message, and never a run that only
looks whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from klear_lab.pipeline import run_pipeline
from klear_lab.policy.model import Policy
from klear_lab.policy.training_state import checksum_of
from klear_lab.rl import trainer
from klear_lab.storage.files import StorageError, checksum_file
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from support.runs import SMALL, same_result

ROOT = Path(__file__).parents[3]
SETTINGS = ["rl.steps=4", *SMALL]


@pytest.fixture
def stopped(run, monkeypatch, tmp_path):
    """The folder of a run that failed in its third RL step, after a checkpoint of the second."""
    real = trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", lambda s, *a: real(s, *a) if s.step < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*SETTINGS)
    (record,) = (tmp_path / "runs").glob("*/run.json")
    return record.parent


@pytest.fixture
def undisturbed(composed_config, tmp_path):
    composed = composed_config(f"runs_dir={tmp_path / 'undisturbed'}", *SETTINGS)
    return run_pipeline(parse(composed), composed)


@pytest.mark.slow
def test_a_checkpoint_of_another_shape_is_passed_by_for_the_one_before_it(run, stopped, undisturbed):
    path = stopped / "checkpoint.pt"
    content = torch.load(path)
    content["model"] = {name: weight[..., :1].clone() for name, weight in content["model"].items()}
    torch.save(content, path)
    checksum_file(path).write_text(checksum_of(path))
    same_result(run(*SETTINGS), undisturbed)


def test_what_is_left_of_a_removed_folder_is_not_gone_on_from(run, stopped, undisturbed):
    """As `rm -rf` under a run leaves it: a checkpoint, and no record nor metrics of the steps before it."""
    (stopped / "run.json").unlink()
    (stopped / "metrics.jsonl").unlink()
    same_result(run(*SETTINGS), undisturbed)


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.parquet"])
def test_a_file_without_which_the_run_would_end_incomplete_is_asked_for(run, stopped, name):
    (stopped / name).unlink()
    with pytest.raises(StorageError, match=rf"{name}: .*missing.*; damaged; delete the folder {stopped}"):
        run(*SETTINGS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{garbage"),
        ("metrics.jsonl", b"\xff\xfe\n"),
        ("metrics.jsonl", b"{}\n"),
        ("probes.jsonl", b"\0\0\0\n"),
        ("evaluations.parquet", b""),
    ],
)
def test_a_damaged_file_is_named(run, stopped, name, content):
    (stopped / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{name}.*damaged; delete the folder {stopped}"):
        run(*SETTINGS)


@pytest.mark.parametrize(
    "name",
    [
        "sft-*/model/model.safetensors",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft-*/metrics.jsonl", "data-*/steps.json")),
    ],
)
def test_a_damaged_stage_is_named_and_made_anew_once_it_is_deleted(run, tmp_path, name):
    run(*SETTINGS)
    cache = tmp_path / "runs" / "cache"
    (file,) = cache.glob(name)
    file.write_bytes(file.read_bytes()[:50])
    stage = cache / file.relative_to(cache).parts[0]
    with pytest.raises(StorageError, match=rf"{stage}: damaged .*; delete this folder"):
        run(*SETTINGS, "seed=1")
    shutil.rmtree(stage)
    assert run(*SETTINGS, "seed=1").record["status"] == "finished"


@pytest.mark.parametrize("made_anew", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_folder_that_vanishes_while_the_model_is_saved_is_never_finished(
    run, monkeypatch, tmp_path, undisturbed, made_anew
):
    real = Policy.save

    def save(policy, folder):
        if (folder.parent / "run.json").exists():
            shutil.rmtree(folder.parent)
            if made_anew:  # as another process would
                folder.parent.mkdir()
                RunFolder(folder.parent).update_record(
                    run_id=folder.parent.name, status="running", attempt="another"
                )
        real(policy, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "save", save)
        with pytest.raises(StorageError, match="the folder vanished"):
            run(*SETTINGS)
    left = [path.name for path in (tmp_path / "runs").glob("*/*") if path.parent.name != "cache"]
    assert set(left) <= ({"run.json", "model"} if made_anew else set())
    same_result(run(*SETTINGS), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "file"), [("16k", "data-*.partial/*.jsonl"), ("700k", "sft-*.partial/model/*")])
def test_a_full_disk_under_the_cache_is_one_message(tmp_path, size, file):
    """Data is written by Python, weights and tokenizer by libraries in Rust."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"can't mount a small file system here: {made.stderr.strip()}")
    settings = [f"cache_dir={disk}", f"runs_dir={tmp_path / 'runs'}", "checkpoint.sft_every=100", *SETTINGS]
    command = [sys.executable, "-m", "klear_lab.run", "scale=smoke", "logger=none", "progress=off", *settings]
    try:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        met = list(disk.glob(file))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert met  # it was there that the room ran out
    assert result.returncode == 1
    assert "the disk is full" in result.stderr and "Traceback" not in result.stderr
