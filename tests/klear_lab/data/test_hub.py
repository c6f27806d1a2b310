"""Rows of hub data sets: `datasets` itself on folders that look like repositories; only the network is replaced."""

import builtins
import json
import subprocess
import sys

import pytest

from klear_lab.config import ConfigError
from klear_lab.data.hub import read_hub_rows
from klear_lab.data.read_rows import read_rows

datasets = pytest.importorskip("datasets", reason="datasets is not installed")

ROWS = [
    {
        "data_source": "math_longcot_math_verify",
        "prompt": [{"content": f"1+{i}?", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": str(1 + i), "style": "rule"},
    }
    for i in range(5)
]
NUMINA = {
    "data_source": {"value": "math_numina"},
    "prompt": "problem",
    "ability": {"value": "math"},
    "ground_truth": "answer",
    "style": {"value": "rule"},
    "keep": {"problem_is_valid": "Yes"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def repository(tmp_path):
    """A folder as `datasets` uploads one: data/<split>-*.parquet and a card with two configs."""
    folder = tmp_path / "Repo"
    for name, rows in (("default", ROWS), ("few", ROWS[:2])):
        (folder / name).mkdir(parents=True)
        datasets.Dataset.from_list(rows).to_parquet(folder / name / "train-00000-of-00001.parquet")
        datasets.Dataset.from_list(rows[:1]).to_parquet(folder / name / "test-00000-of-00001.parquet")
    configs = [
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {name}/{split}-*\n" for split in ("train", "test"))
        for name in ("default", "few")
    ]
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n# Rows\n")
    return str(folder)


def test_rows_of_a_repository_with_ids_of_its_name_and_split(repository):
    read = read_hub_rows(repository, {}, "rl")
    assert [row["id"] for row in read.rows] == [f"Repo-train-{i}" for i in range(1, 6)]
    assert [{key: row[key] for key in ROWS[0]} for row in read.rows] == ROWS
    assert (read.bad_rows, read.not_kept) == ({}, 0)


def test_config_split_and_limit(repository):
    assert len(read_hub_rows(repository, {}, "rl", config="few").rows) == 2
    assert len(read_hub_rows(repository, {}, "rl", split="test").rows) == 1
    assert len(read_hub_rows(repository, {}, "rl", limit=3).rows) == 3


def test_a_mapping_and_the_checks_of_files_apply(tmp_path):
    rows = [
        {"problem": "1+1?", "answer": "2", "problem_is_valid": "Yes"},
        {"problem": "1+2?", "answer": "3", "problem_is_valid": "No"},
        {"problem": "", "answer": "3", "problem_is_valid": "Yes"},
    ]
    folder = tmp_path / "Numina"
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    with pytest.raises(
        ConfigError, match=r"Numina \(train\), row 3: prompt: is list .*fix it, or data.on_bad_row"
    ):
        read_hub_rows(str(folder), NUMINA, "rl")
    read = read_hub_rows(str(folder), NUMINA, "rl", "skip")
    assert [row["reward_model"]["ground_truth"] for row in read.rows] == ["2"]
    assert (read.bad_rows, read.not_kept) == ({"empty prompt": 1}, 1)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "arrow"])
def test_files_inside_of_a_repository_are_read_without_its_loading_script(tmp_path, form):
    folder = tmp_path / "Scripted"
    data = datasets.Dataset.from_list(ROWS)
    if form == "arrow":
        data.save_to_disk(folder / "train")
        pattern = "train/data-*.arrow"
    else:
        folder.mkdir()
        getattr(data, "to_json" if form == "jsonl" else "to_parquet")(folder / f"part.{form}")
        pattern = f"*.{form}"
    (folder / "Scripted.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match=r"scripts are no longer supported.*name its data files with files="):
        read_hub_rows(str(folder), {}, "rl")
    read = read_hub_rows(str(folder), {}, "rl", files=[pattern])
    assert [{key: row[key] for key in ROWS[0]} for row in read.rows] == ROWS


def test_an_unknown_config_or_split_names_those_there_are(repository):
    with pytest.raises(ConfigError, match=r"(?s)config=most, split=train.*default.*few"):
        read_hub_rows(repository, {}, "rl", config="most")
    with pytest.raises(ConfigError, match=r"(?s)split=dev.*train"):
        read_hub_rows(repository, {}, "rl", split="dev")
    with pytest.raises(ConfigError, match=r"must end in one of .parquet"):
        read_hub_rows(repository, {}, "rl", files=["train.csv"])


def test_a_corrupt_file_of_a_repository_is_counted(repository, tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "Torn").mkdir()
    (tmp_path / "Torn" / "train.jsonl").write_text("\n".join([*lines, lines[0][:30]]))
    with pytest.raises(ConfigError, match="truncated or corrupt"):
        read_hub_rows(str(tmp_path / "Torn"), {}, "rl", files=["train.jsonl"])
    read = read_hub_rows(str(tmp_path / "Torn"), {}, "rl", "skip", files=["train.jsonl"])
    assert read.bad_rows == {"truncated file": 1}


@pytest.mark.parametrize("files", [None, ["train.jsonl"]])
def test_without_the_hub_the_error_says_what_to_do(monkeypatch, files):
    def no_network(*_, **__):
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    message = (
        r"Suu/KlearReasoner-MathSub-30K: the hub can't be reached \(ConnectionError: Network is unreachable\); "
    )
    with pytest.raises(ConfigError, match=message + "download it and use data_source=file"):
        read_hub_rows("Suu/KlearReasoner-MathSub-30K", {}, "rl", "skip", files=files)


def test_offline_mode_is_a_hub_that_cannot_be_reached():
    program = (
        "from klear_lab.config import ConfigError\n"
        "from klear_lab.data.hub import read_hub_rows\n"
        "try: read_hub_rows('Suu/KlearReasoner-MathSub-30K', {}, 'rl')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"}, timeout=120
    )
    assert "the hub can't be reached" in done.stdout and "use data_source=file" in done.stdout, done.stderr


def test_a_network_that_fails_on_the_way_is_never_skipped(repository, monkeypatch):
    def failing(*_, **__):
        yield ROWS[0]
        raise TimeoutError("read timed out")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: failing())
    with pytest.raises(ConfigError, match="the hub can't be reached"):
        read_hub_rows("Suu/KlearReasoner-MathSub-30K", {}, "rl", "skip")


def test_without_datasets_the_error_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without_datasets(name, *args, **kwargs):
        if name.partition(".")[0] == "datasets":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(ConfigError, match="needs datasets; pip install datasets"):
        read_hub_rows("Suu/KlearReasoner-MathSub-30K", {}, "rl")


def test_columns_with_a_dot_in_their_names_are_read_and_the_others_left_out(tmp_path):
    folder = tmp_path / "Dotted"
    folder.mkdir()
    rows = [{"meta.answer": "2", "q": {"text": "1+1?", "more": "x"}, "unused": 1, "meta": {"valid": "Yes"}}]
    datasets.Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    columns = {**NUMINA, "ground_truth": "meta.answer", "prompt": "q.text", "keep": {"meta.valid": "Yes"}}
    (row,) = read_hub_rows(str(folder), columns, "rl").rows
    assert (row["reward_model"]["ground_truth"], row["prompt"][0]["content"]) == ("2", "1+1?")
    assert read_rows([str(folder / "train.parquet")], columns, "rl").rows == [{**row, "id": "train-1"}]
