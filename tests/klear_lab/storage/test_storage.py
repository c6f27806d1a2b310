"""Files that survive: whole or not at all, also on a full disk and in a folder that vanishes."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from klear_lab import sft
from klear_lab.pipeline import run_pipeline
from klear_lab.rl import trainer
from klear_lab.storage import files as storage
from klear_lab.storage.files import StorageError, append_whole, replace_file, replacing
from klear_lab.storage.run_folder import RunFolder, whole_lines
from klear_lab.validation import parse
from support.runs import SMALL, same_result

ROOT = Path(__file__).parents[3]


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    replace_file(path, "old")
    with pytest.raises(RuntimeError, match="boom"), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("boom")
    assert (path.read_text(), [p.name for p in tmp_path.iterdir()]) == ("old", ["file"])


def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, "old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"file: the disk is full .* MiB free\); make room, and the same"):
        replace_file(path, "new")
    assert (path.read_text(), [p.name for p in tmp_path.iterdir()]) == ("old", ["file"])


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    path, write = tmp_path / "lines", os.write
    append_whole(path, "first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, content: write(file, content[:3]))
        with pytest.raises(StorageError, match="the disk is full"):
            append_whole(path, "second")
    append_whole(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_an_error_of_torch_that_hides_the_systems_is_seen_through(tmp_path):
    with pytest.raises(StorageError, match="the disk is full"), storage.explained(tmp_path / "x"):
        try:
            no_space()
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904
    with pytest.raises(RuntimeError, match="mistake"), storage.explained(tmp_path / "x"):
        raise RuntimeError("mistake")


def test_errors_of_rust_that_only_have_words_are_understood_and_others_left_alone(tmp_path):
    said = storage.trouble(Exception("I/O error: No space left on device (os error 28)"), [tmp_path])
    assert f"{tmp_path}/a file: the disk is full" in str(said)
    lost = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "gone" / "file"))
    assert str(storage.trouble(lost, [tmp_path / "gone"])).startswith(f"{tmp_path / 'gone'}: the folder vanished")
    assert storage.trouble(lost, [tmp_path]) is storage.trouble(ValueError("os"), [tmp_path]) is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB, which holds SFT and one RL checkpoint of the tiny model and no more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"can't mount a small file system here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_bit_for_bit_when_there_is_room(
    small_disk, tmp_path, composed_config
):
    """At the command line: RL's second checkpoint finds no room beside the first."""
    cache = tmp_path / "cache"
    settings = [f"runs_dir={small_disk}", f"cache_dir={cache}", "rl.steps=4", *SMALL]
    command = [sys.executable, "-m", "klear_lab.run", "scale=smoke", "logger=none", "progress=off", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "the disk is full" in failed.stderr and "Traceback" not in failed.stderr
    assert not list(small_disk.glob("*/.*.partial"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = composed_config(*settings)
    other = composed_config(*settings[1:], f"runs_dir={tmp_path / 'other'}")
    same_result(run_pipeline(parse(again), again), run_pipeline(parse(other), other))


def test_a_checkpoint_that_finds_no_room_leaves_a_run_that_goes_on(run, monkeypatch, composed_config, tmp_path):
    """The same with a disk that only says so, for machines that can't mount one."""
    save = torch.save

    def full_at_three(content, file):
        if content["history"] == [] and content["step"] == 3:
            no_space()
        save(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_at_three)
        with pytest.raises(StorageError, match="checkpoint.pt: the disk is full"):
            run("rl.steps=4", *SMALL)
    (record,) = [RunFolder(p.parent).record for p in (tmp_path / "runs").glob("*/run.json")]
    assert record["status"] == "failed" and record["error"].startswith(str(tmp_path))
    steps, real = [], trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda state, *a: steps.append(state.step) or real(state, *a))
    again = run("rl.steps=4", *SMALL)
    assert steps == [2, 3]
    composed = composed_config(f"runs_dir={tmp_path / 'other'}", "rl.steps=4", *SMALL)
    same_result(again, run_pipeline(parse(composed), composed))


@pytest.mark.parametrize("what", ["run", "cache"])
def test_a_vanished_folder_is_named_and_the_next_attempt_starts_anew(run, monkeypatch, tmp_path, what):
    runs, step = tmp_path / "runs", {"run": trainer, "cache": sft}[what]
    real = step.train_step

    def vanish(state, *rest):
        result = real(state, *rest)
        for folder in runs.glob("*/run.json") if what == "run" else runs.glob("cache/"):
            shutil.rmtree(folder.parent if what == "run" else folder)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(step, "train_step", vanish)
        with pytest.raises(StorageError, match="the folder vanished while it was written to"):
            run(*SMALL)
    assert run(*SMALL).record["status"] == "finished"


def test_a_damaged_file_of_a_run_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"stage": "rl", "step": 1}\n{"sta\n{"stage": "rl", "step": 3}\n')
    with pytest.raises(StorageError, match=r"metrics.jsonl:2: damaged; delete the folder"):
        folder.metrics()
    (tmp_path / "evaluations.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=r"evaluations.parquet: damaged; delete the folder"):
        folder.evaluations()
    folder.write_frame(pd.DataFrame({"step": [1]}), "evaluations.parquet")
    assert len(folder.evaluations()) == 1


def test_lines_end_where_json_lines_end_and_nowhere_in_a_response(tmp_path):
    path = tmp_path / "0.jsonl"
    responses = ["a\u2028b", "c\u0085d\u2029", "e\rf"]
    lines = [json.dumps({"response": text}, ensure_ascii=False) + "\n" for text in responses]
    path.write_text("".join(lines) + '{"response": "cut', encoding="utf-8", newline="")
    assert [json.loads(line)["response"] for line in whole_lines(path)] == responses


def test_a_folder_that_vanished_during_a_stage_is_one_message(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.update_record(run_id="run")
    folder.start("", torch.device("cpu"))
    shutil.rmtree(folder.path)
    with pytest.raises(StorageError, match="vanished"):
        folder.finish_stage("data", 1.0, "key", from_cache=False)
