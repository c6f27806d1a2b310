"""Runs from wandb: offline files of a real run, and a project's public API as far as it can be had offline."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import wandb

from analysis.__main__ import main
from analysis.errors import RunFolderError
from analysis.runs.frames import load_runs
from analysis.runs.from_wandb import load_wandb
from analysis.runs.wandb_file import read_file
from analysis.sweeps.from_runs import keep_sweep

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two smoke runs of a sweep, with wandb offline."""
    folder = tmp_path_factory.mktemp("wandb")
    settings = ["scale=smoke", "clip_method=gppo,cispo", "sweep_name=figure2", "progress=off"]
    command = [sys.executable, "-m", "klear_lab.run", "-m", *settings, f"runs_dir={folder / 'runs'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory):
    """The .wandb files alone, as copied from another machine."""
    folder = tmp_path_factory.mktemp("copied")
    for file in runs.glob("*/wandb/*/*.wandb"):
        shutil.copy(file, folder)
    return folder


def same_as_folders(found, runs):
    own = load_runs(runs)
    names = ["benchmark", "step", "score", "samples"]
    order = ["run_id", *names[:2]]
    pd.testing.assert_frame_equal(
        found.scores.sort_values(order)[["run_id", *names]].reset_index(drop=True),
        own.scores.sort_values(order)[["run_id", *names]].reset_index(drop=True),
        check_dtype=False,
    )
    columns = [name for name in own.metrics if own.metrics[name].notna().any()]
    keys = ["run_id", "stage", "step"]
    pd.testing.assert_frame_equal(
        found.metrics[columns].sort_values(keys).reset_index(drop=True),
        own.metrics[columns].sort_values(keys).reset_index(drop=True),
        check_dtype=False,
    )
    assert found.configs == own.configs
    for one, other in zip(keep_sweep(found, "figure2").runs, keep_sweep(own, "figure2").runs, strict=True):
        for key in ("run_id", "arm", "seed", "tokens", "scores", "curves"):
            assert one[key] == other[key], key


def test_offline_files_hold_what_the_folders_hold(runs, files):
    found = load_wandb(str(files))
    assert [*found.runs["status"]] == ["finished", "finished"]
    same_as_folders(found, runs)
    file = next(files.glob("*.wandb"))
    assert [*load_wandb(str(file)).records] == [read_file(file).run_id]


def test_the_public_api_gives_the_same(runs, files, monkeypatch, capsys):
    """The api's runs are stand-ins that hold what the files hold, with what wandb adds or draws together."""
    read = [read_file(file) for file in sorted(files.glob("*.wandb"))]
    there = [
        SimpleNamespace(
            id=one.run_id,
            config=one.config,
            state="finished",
            created_at="2026-01-01T10:00:00Z",
            scan_history=lambda rows=one.history: iter(
                [{**row, "ratio/r_histogram": {"_type": "histogram", "values": [1]}} for row in rows]
            ),
        )
        for one in read
    ]
    other = SimpleNamespace(id="x", config={"lr": 1}, state="crashed", created_at="", scan_history=list)
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=lambda path: [*there, other]))
    same_as_folders(load_wandb("team/project"), runs)
    assert "passed by: team/project/x, which klear_lab didn't log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "status"),
    [("crashed", "failed"), ("failed", "failed"), ("running", "running"), ("killed", "failed")],
)
def test_runs_that_have_not_finished_are_listed_as_that(files, monkeypatch, state, status):
    one = read_file(next(files.glob("*.wandb")))
    run = SimpleNamespace(
        id="a", config=one.config, state=state, created_at="", scan_history=lambda: iter(one.history[:-1])
    )
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(runs=lambda path: [run]))
    found = load_wandb("team/project")
    assert [*found.runs["status"]] == [status]
    with pytest.raises(RunFolderError, match="no finished run of sweep figure2"):
        keep_sweep(found, "figure2")


def test_a_file_that_its_run_still_writes_to_is_an_unfinished_run(files, tmp_path):
    file = next(files.glob("*.wandb"))
    content = file.read_bytes()
    (tmp_path / "half.wandb").write_bytes(content[: len(content) * 2 // 3])
    found = load_wandb(str(tmp_path))
    assert [*found.runs["status"]] == ["running"] and 0 < len(found.metrics) < len(read_file(file).history)


def test_what_is_no_source_is_named(tmp_path, monkeypatch):
    with pytest.raises(RunFolderError, match="holds no .wandb file"):
        load_wandb(str(tmp_path))
    (tmp_path / "bad.wandb").write_bytes(b":W&B" + bytes(range(1, 250)))
    with pytest.raises(RunFolderError, match=r"bad\.wandb: "):
        load_wandb(str(tmp_path))

    def refused():
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "Api", refused)
    with pytest.raises(RunFolderError, match="neither a path nor a project .*wandb login"):
        load_wandb("team/project")


@pytest.mark.slow
def test_the_report_takes_them(files, tmp_path, capsys):
    folders = ["--out", str(tmp_path / "report"), "--results", str(tmp_path)]
    assert main(["--wandb", str(files), *folders]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "samples each" in page and "nan prompts" not in page and f"--wandb {files}" in page
