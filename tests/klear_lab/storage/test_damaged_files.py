"""A run that is started again on damaged files says which file it is and what to do, in one line; nothing is lost
silently, and a sweep's other arms and its table don't suffer."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from klear_lab import run as command_line
from klear_lab.config import register
from klear_lab.pipeline import run_pipeline
from klear_lab.policy.training_state import checksum_of
from klear_lab.rl import trainer
from klear_lab.storage.files import StorageError, checksum_file
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from support.runs import SMALL, same_result

SETTINGS = [
    "scale=smoke",
    "logger=none",
    "progress=off",
    "sft.steps=2",
    "rl.steps=3",
    "checkpoint.rl_every=1",
    *SMALL,
]
CONF = str(Path(command_line.__file__).parents[1] / "conf")


def start(runs, *overrides):
    register()
    with initialize_config_dir(CONF, version_base="1.3"):
        composed = compose("config", overrides=[*SETTINGS, f"runs_dir={runs}", *overrides])
    return run_pipeline(parse(composed), composed)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder of all runs, with one that failed in its third RL step."""
    runs = tmp_path_factory.mktemp("left") / "runs"
    real = trainer.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train_step", lambda s, *a: real(s, *a) if s.step < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start(runs)
    return runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return start(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def stopped(left, tmp_path):
    """A copy of that run's folder."""
    shutil.copytree(left, tmp_path / "runs")
    (record,) = (tmp_path / "runs").glob("*/run.json")
    return RunFolder(record.parent)


def edited(file, **changes):
    """The content of a JSON file with other values; None leaves a key out."""
    content = {**json.loads(file.read_text()), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode()


RECORDS = [
    (b"", "isn't JSON"),
    (b"{garbage", "isn't JSON"),
    (b"\xff\xfe{}", "isn't JSON"),
    (b"[" * 100_000, "isn't JSON"),
    (b"[]", "isn't one object"),
    (b'[["run_id", "x"]]', "isn't one object"),
    (b"null", "isn't one object"),
    (b'"text"', "isn't one object"),
    (b"{}", "says nothing"),
    ({"run_id": None}, "run_id is null, not"),
    ({"run_id": "0123456789ab"}, 'run_id is "0123456789ab", not'),
    ({"run_id": ["x"]}, r'run_id is \["x"\], not'),
    ({"status": None}, "status is null, none of running, finished, failed"),
    ({"status": "done"}, 'status is "done", none of'),
    ({"status": ["finished"]}, "status is .*, none of"),
    ({"sweeps": [1]}, r"sweeps is \[1\], not an object"),
    ({"stages": "all"}, 'stages is "all", not an object'),
    ({"inputs": 7}, "inputs is 7, not an object"),
    ({"inputs": {"stage_versions": [2]}}, "stage_versions isn't an object"),
]


@pytest.mark.parametrize(("content", "how"), RECORDS)
def test_a_damaged_record_is_named_and_nothing_is_touched(stopped, tmp_path, content, how):
    file = stopped.path / "run.json"
    file.write_bytes(edited(file, **content) if isinstance(content, dict) else content)
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    with pytest.raises(
        StorageError, match=f"run.json: {how}.*; damaged; delete the folder {stopped.path}"
    ) as error:
        start(tmp_path / "runs")
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()} == before


LINE = b'{"stage": "rl", "step": 1}\n'
LINES = [
    ("metrics.jsonl", b"{\n" + LINE),
    ("metrics.jsonl", b"\xff\xfe\n"),
    ("metrics.jsonl", b"[1]\n"),
    ("metrics.jsonl", b"7\n"),
    ("metrics.jsonl", b"null\n"),
    ("metrics.jsonl", b"\n"),
    ("metrics.jsonl", b"[" * 100_000 + b"\n"),
    ("metrics.jsonl", b'{"stage": "rl"}\n'),
    ("metrics.jsonl", b'{"step": 1}\n'),
    ("metrics.jsonl", b'{"stage": "dpo", "step": 1}\n'),
    ("metrics.jsonl", b'{"stage": "rl", "step": "1"}\n'),
    ("metrics.jsonl", b'{"stage": "rl", "step": 1.5}\n'),
    ("metrics.jsonl", b'{"stage": "rl", "step": null}\n'),
    ("metrics.jsonl", LINE + LINE),
    ("metrics.jsonl", b""),
    ("probes.jsonl", b'{"step": true}\n'),
    ("probes.jsonl", b"\0\0\0\n"),
]


@pytest.mark.parametrize(("name", "content"), LINES)
def test_damaged_lines_are_named(stopped, tmp_path, name, content):
    (stopped.path / name).write_bytes(content)
    with pytest.raises(StorageError, match=f"{name}.*damaged; delete the folder {stopped.path}") as error:
        start(tmp_path / "runs")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1 and no more", {"a": [1]}, {"step": ["1"]}, {"step": [0.5]}, "a folder"]
)
def test_damaged_evaluations_are_named(stopped, tmp_path, content):
    file = stopped.path / "evaluations.parquet"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        pd.DataFrame(content).to_parquet(file)
    else:
        file.unlink()
        file.mkdir()
    with pytest.raises(StorageError, match="evaluations.parquet: .*delete the folder") as error:
        start(tmp_path / "runs")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "checksum", "checksum not text", "no checksum"])
def test_a_damaged_checkpoint_is_passed_by_and_both_make_the_stage_anew_saying_so(
    stopped, tmp_path, undisturbed, caplog, damage
):
    files = [stopped.path / "checkpoint.pt", stopped.path / "checkpoint.previous.pt"]
    for file in files:
        content = file.read_bytes()
        if damage.startswith("checksum"):
            checksum_file(file).write_bytes(b"\xff\xfe" if "not" in damage else b"00000000")
        elif damage == "no checksum":
            checksum_file(file).unlink()
        else:
            flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
            file.write_bytes({"cut": content[:-100], "empty": b"", "flipped": flipped}[damage])
    same_result(start(tmp_path / "runs"), undisturbed)
    assert "checkpoint.pt: damaged, and there is no other; this stage starts anew" in caplog.text


@pytest.mark.parametrize("content", [b"not of torch at all", b"PK\x03\x04"])
def test_a_checkpoint_that_is_whole_but_none_is_passed_by(stopped, tmp_path, undisturbed, content):
    """Its checksum is right, so that only reading it shows."""
    file = stopped.path / "checkpoint.pt"
    file.write_bytes(content)
    checksum_file(file).write_text(checksum_of(file))
    same_result(start(tmp_path / "runs"), undisturbed)


def test_a_persons_own_files_among_the_rollouts_stay(stopped, tmp_path, undisturbed):
    notes = stopped.path / "rollouts" / "my_notes.parquet"
    notes.parent.mkdir(exist_ok=True)
    pd.DataFrame({"a": [1]}).to_parquet(notes)
    assert start(tmp_path / "runs").record["status"] == "finished"
    assert notes.exists()


@pytest.mark.slow
def test_a_sweep_with_damaged_runs_ends_with_the_whole_table(tmp_path, monkeypatch, capfd):
    """One arm's record, one finished arm's metrics, and one that is well."""
    sweep = [*SETTINGS, f"runs_dir={tmp_path / 'runs'}", "seed=0,1,2", "-m"]
    assert call(monkeypatch, sweep) in (None, 0)
    folders = {json.loads(f.read_text())["seed"]: f.parent for f in (tmp_path / "runs").glob("*/run.json")}
    (folders[0] / "run.json").write_text("[]")
    (folders[1] / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    capfd.readouterr()
    assert "2 of 3 arms failed" in str(call(monkeypatch, sweep))
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert f"{folders[0]}/run.json: isn't one object; damaged; delete the folder" in shown
    assert f"{folders[1]}/metrics.jsonl:1: damaged; delete the folder" in shown
    statuses = [line.split("│")[3].strip() for line in shown.splitlines() if line.startswith("│")]
    assert [status for status in statuses if status] == ["failed", "damaged", "finished"]


def call(monkeypatch, arguments):
    """What `python -m klear_lab.run` exits with."""
    monkeypatch.setattr("sys.argv", ["klear_lab.run", *arguments])
    try:
        command_line.main()
    except SystemExit as end:
        return end.code
    return None
