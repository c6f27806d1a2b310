"""Data sources of files, of the hub and of reasoning-gym, through whole runs; bad rows, changed and missing files.

The hub's are folders with rows in each data set's own format and layout, read by `datasets` itself.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from klear_lab.config import ConfigError
from klear_lab.data import reasoning_gym_source
from klear_lab.data.prepare import prepare_data
from klear_lab.data.read_rows import LONGEST_LINE
from klear_lab.data.sources import load_source, source_fingerprint
from klear_lab.engines.registry import ENGINES
from klear_lab.rows import prompt_text
from klear_lab.storage.run_folder import RunFolder
from support.cards import CARDS, LEETCODE, SOURCES
from support.models import save_model
from support.rows import BAD, rl_row, sft_row, write, write_parquet
from support.runs import SIZES

AIME24 = "pkg://klear_lab/data/benchmarks/aime24.jsonl"
HUB = sorted(
    {path.stem for path in SOURCES.glob("*.yaml")}
    - {"chain", "functions", "chain_and_functions", "file", "reasoning_gym"}
    - {"klear_reasoner"}  # five of these joined; test_joined_source.py has it
)
RL = "data_source=file", "sft.steps=0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that real text fits into."""
    return save_model(tmp_path_factory.mktemp("model"), positions=4096)


@pytest.fixture
def small(run, model):
    """A function from overrides to the folder of a run with that model, as small as can be."""
    settings = [*SIZES, "model=path", f"model.path={model}", "data.minimum_tests=1", "sft.max_tokens=2000"]
    return lambda *overrides: run(*settings, *overrides)


def numbered(row, i):
    """A row of a card with another problem."""
    text = json.dumps(row).replace("1+1?", f"1+{i}?").replace("Add one.", f"Add {i}.").replace("3001", f"300{i}")
    return json.loads(text.replace("852/A", f"85{i}/A"))


# Whole runs


def save_repository(folder, rows, config, split, files):
    """Rows as the repository has them: the files that are named, or the layout that `datasets` uploads."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    folder.mkdir(exist_ok=True)
    data = datasets.Dataset.from_list(rows)
    if files and files[0].endswith(".jsonl"):
        data.to_json(folder / files[0])
    elif files:
        data.save_to_disk(folder / Path(files[0]).parent)
    else:
        (folder / "data").mkdir()
        data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        name = config or "default"
        card = {"configs": [{"config_name": name, "data_files": [{"split": split, "path": f"data/{split}-*"}]}]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")


@pytest.mark.parametrize("name", HUB)
def test_every_data_source_of_the_hub_runs(small, tmp_path, monkeypatch, name):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = yaml.safe_load((SOURCES / f"{name}.yaml").read_text())
    kind, theirs = next((kind, row) for card, kind, row, _ in CARDS if card == name)
    sets = {kind: (source[kind], theirs)}
    sets |= {f"benchmarks.{key}": (of, LEETCODE) for key, of in source["benchmarks"].items() if of["repository"]}
    overrides = [f"data_source={name}", f"{'rl' if kind == 'sft' else 'sft'}.steps=0"]
    for key, (of, row) in sets.items():
        if "code" in json.dumps(of["columns"]) and not shutil.which("bwrap"):
            pytest.skip("needs bubblewrap")
        folder = tmp_path / of["repository"].replace("/", "+")
        rows = [numbered(row, i) for i in range(2, 6)]
        save_repository(folder, rows, of["config"], of["split"], of["files"])
        overrides.append(f"data_source.{key}.repository={folder}")
    folder = small(*overrides)
    assert folder.record["status"] == "finished"
    data = folder.record["data"]
    assert {(s["set"], s["taken"]) for s in data if s["step"] == "data_source=hub"} == {
        (kind, 4),
        ({"sft": "rl", "rl": "sft"}[kind], 0),
    }
    trained = [line for line in folder.metrics() if line["stage"] == kind][-1]
    assert trained["optim/updates"] == 2 if kind == "rl" else trained["loss/sft"] > 0
    assert set(folder.evaluations()["benchmark"]) == set(source["benchmarks"])


def test_files_for_both_stages(small, tmp_path):
    sft = write(tmp_path / "sft.jsonl.gz", [sft_row(prompt=f"1+{i}?") for i in range(6)])
    for half in (0, 1):
        rows = [rl_row(id=None, prompt=f"{half}+{i}?") for i in range(3)]
        write_parquet(tmp_path / f"rl-{half}.parquet", rows)
    folder = small(
        *(
            "data_source=file",
            f"data_source.sft.files=[{sft}]",
            f"data_source.rl.files=['{tmp_path}/rl-*.parquet']",
        ),
        f"+data_source.benchmarks.mine={{files: ['{tmp_path}/rl-0.parquet']}}",
    )
    assert [*folder.record["stages"]] == ["data", "sft", "rl", "evaluation"]
    assert set(folder.evaluations()["prompt_id"]) == {"rl-0-1", "rl-0-2"}  # data.benchmark_rows=2
    dropped = {(s["set"], s["step"]): s["dropped"] for s in folder.record["data"]}
    # "1+0?" is a query of its own; the three of rl-0 are the benchmark's first two and one more.
    assert dropped["rl", "data.decontaminate_ngram=9"] == {"shares 9 words with a benchmark": 2}


def test_files_for_one_stage_only(small, tmp_path):
    rl = write(tmp_path / "rl.jsonl", [rl_row(id=None, prompt=f"1+{i}?") for i in range(6)])
    sft = write(tmp_path / "sft.jsonl", [sft_row(prompt=f"1+{i}?") for i in range(6)])
    folder = small(*RL, f"data_source.rl.files=[{rl}]")
    assert [*folder.record["stages"]] == ["data", "rl", "evaluation"]
    folder = small("data_source=file", f"data_source.sft.files=[{sft}]", "rl.steps=0")
    assert {line["stage"] for line in folder.metrics()} == {"sft", "rl"}
    assert len(folder.evaluations()) == 0


def test_columns_of_files_are_mapped_from_the_command_line(config, tmp_path):
    file = write(tmp_path / "x.jsonl", [{"problem": "1+1?", "answer": 2}, {"problem": "1+2?", "answer": ""}])
    columns = (
        "{prompt: problem, data_source: {value: math}, ability: {value: math}, style: {value: rule}, "
        "ground_truth: {column: answer, as: text}, drop: {answer: ''}}"
    )
    c = config(*RL, f"data_source.rl.files=[{file}]", f"+data_source.rl.columns={columns}")
    source = load_source(c)
    assert [row["reward_model"]["ground_truth"] for row in source.rl_rows] == ["2"]
    (step,) = [s for s in prepare_data(c).steps if s["step"] == "data_source=file" and s["set"] == "rl"]
    assert step == {
        "step": "data_source=file",
        "set": "rl",
        "taken": 2,
        "kept": 1,
        "dropped": {"not kept by columns": 1},
    }


def test_reasoning_gym_runs(small):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    folder = small("data_source=reasoning_gym", "sft.steps=0")
    assert folder.record["status"] == "finished"
    assert folder.metrics()[-1]["optim/updates"] == 2
    assert set(folder.evaluations()["benchmark"]) == {"chain_sum", "simple_equations"}


def test_the_real_benchmark_aime24_goes_through_the_whole_run(small):
    benchmark = yaml.safe_load((SOURCES / "klear_math.yaml").read_text())["benchmarks"]["aime24"]
    assert benchmark["files"] == [AIME24]
    given = json.dumps({"files": [AIME24], "columns": benchmark["columns"]})
    hydra = re.sub(r'"(\w+)":', r"\1:", given)  # keys of an override bear no quotes
    folder = small(
        *("data_source=file", "sft.steps=0", "rl.steps=0", "data.benchmark_rows=null"),
        f"+data_source.benchmarks.aime24={hydra}",
    )
    frame = folder.evaluations()
    assert (folder.path / "evaluations.parquet").exists()
    assert len(frame) == frame["prompt_id"].nunique() == 30
    assert set(frame["benchmark"]) == {"aime24"}


# Bad rows

KINDS = {
    **{
        reason: bad
        for kind, bad, reason, _ in BAD
        if kind == "rl" and reason not in ("line too long", "wrong type")
    },
    "wrong type": rl_row(id="b", prompt=7),
}


def bad_file(tmp_path, reason):
    """A file with one bad row among good ones, the place that must be named, and the key."""
    good = [rl_row(id=f"r{i}", prompt=f"1+{i}?") for i in range(8)]
    if reason == "truncated file":
        file = write_parquet(tmp_path / "bad.parquet", good, row_group_size=4)
        Path(file).write_bytes(Path(file).read_bytes()[:-200])
        write(tmp_path / "good.jsonl", good)
        return f"{file}, row 1", "", [file, str(tmp_path / "good.jsonl")]
    if reason == "line too long":
        bad = b'{"id": "' + b"x" * LONGEST_LINE + b'"}'
    else:
        bad = KINDS[reason] if reason != "duplicate id" else good[0]
    file = write(tmp_path / "bad.jsonl", [good[0], bad, *good[1:]])
    keys = {
        "missing key": "ground_truth",
        "unreadable tests": "ground_truth",
        "empty ground_truth": "ground_truth",
    }
    keys |= {"unknown data_source": "data_source", "duplicate id": "id"}
    keys |= dict.fromkeys(("empty prompt", "wrong type"), "prompt")
    return f"{file}, line 2", keys.get(reason, ""), [file]


def never(*_):
    raise AssertionError("trained")


@pytest.mark.parametrize("reason", sorted([*KINDS, "line too long", "truncated file"]))
def test_a_bad_row_stops_before_training_or_is_skipped_and_counted(small, tmp_path, monkeypatch, caplog, reason):
    place, key, files = bad_file(tmp_path, reason)
    overrides = [*RL, f"data_source.rl.files=[{','.join(files)}]"]
    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "local", never)
        with pytest.raises(ConfigError) as error:
            small(*overrides)
    assert str(error.value).startswith(f"data_source.rl: {place}: {key}")
    assert "data.on_bad_row=skip" in str(error.value)
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json")]
    assert record["status"] == "failed"
    folder = small(*overrides, "data.on_bad_row=skip")
    (step,) = [s for s in folder.record["data"] if s["step"] == "data_source=file" and s["set"] == "rl"]
    assert step["dropped"] == {reason: 1} and step["kept"] == 8 and step["taken"] == 9
    assert f"data_source.rl: skipped 1 ({reason}), first {place}" in caplog.text


def test_bad_rows_of_a_benchmark_stop_or_are_counted_too(config, tmp_path):
    file = write(tmp_path / "b.jsonl", [rl_row(), rl_row(id="b", prompt=7)])
    overrides = [
        "data_source=file",
        "sft.steps=0",
        "rl.steps=0",
        f"+data_source.benchmarks.mine={{files: ['{file}']}}",
    ]
    with pytest.raises(ConfigError, match=r"^data_source.benchmarks.mine: .*b.jsonl, line 2: prompt: is int 7"):
        prepare_data(config(*overrides))
    prepared = prepare_data(config(*overrides, "data.on_bad_row=skip"))
    assert prepared.steps[-1] == {
        "step": "data_source=file",
        "set": "mine",
        "taken": 2,
        "kept": 1,
        "dropped": {"wrong type": 1},
    }


def test_a_set_without_a_row_that_can_be_used_is_an_error(config, tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row(prompt=7)])
    with pytest.raises(ConfigError, match=r"data_source.rl: has no row that can be used \(1 wrong type\)"):
        load_source(config(*RL, f"data_source.rl.files=[{file}]", "data.on_bad_row=skip"))
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match=r"data_source.rl: has no row that can be used \(it is empty\)"):
        load_source(config(*RL, f"data_source.rl.files=[{file}]"))


def test_limits_take_the_first_rows_and_null_takes_all(config, tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row(id=f"r{i}") for i in range(50)])
    given = *RL, f"data_source.rl.files=[{file}]"
    assert [row["id"] for row in load_source(config(*given, "data.rl_rows=3")).rl_rows] == ["r0", "r1", "r2"]
    assert len(load_source(config(*given, "data.rl_rows=null")).rl_rows) == 50


def test_the_best_sources_are_those_that_the_config_calls_the_best(config, tmp_path):
    rows = [sft_row(prompt=f"1+{i}?", source="abc"[i % 3]) for i in range(9)]
    file = write(tmp_path / "a.jsonl", rows)
    given = ["data_source=file", "rl.steps=0", f"data_source.sft.files=[{file}]", "data.top_sources=2"]
    prepared = prepare_data(config(*given, "data_source.quality_order=[c,a,b]"))
    assert {row["source"] for row in prepared.sft_rows} == {"a", "c"}
    with pytest.raises(ConfigError, match=r"data.top_sources=2: .*set data_source.quality_order="):
        config(*given)


# Files that change or go


def test_rows_that_are_made_here_or_come_from_the_hub_have_no_fingerprint(config, tmp_path):
    for given in ([], ["data_source=reasoning_gym"], ["data_source=deepscaler", "sft.steps=0"]):
        assert source_fingerprint(config(*given).data_source, tmp_path) is None


def test_a_missing_file_names_the_nearest_and_a_finished_run_does_without(small, run, tmp_path):
    file = Path(write(tmp_path / "train.jsonl", [rl_row(id=None, prompt=f"1+{i}?") for i in range(5)]))
    given = *RL, f"data_source.rl.files=[{file}]", "rl.steps=0"
    with pytest.raises(
        ConfigError, match=r"^data_source.rl.files: .*trian.jsonl: no such file; nearest in .*: train"
    ):
        small(*(word.replace("train", "trian") for word in given))
    done = small(*given)
    file.unlink()
    assert RunFolder(small(*given).path).record == done.record
    with pytest.raises(ConfigError, match=r"data_source.rl: ./moon: no such folder; nearest in "):
        small(*RL, "data_source.rl.repository=./moon", "data_source.rl.split=train")


# What the config says


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data_source=file"], r"sft.steps=4: data_source.sft names neither files nor a repository.*sft.steps=0"),
        (["data_source=file"], r"rl.steps=2: data_source.rl names neither files nor a repository.*rl.steps=0"),
        (["data_source=klear_math"], r"sft.steps=4: data_source.sft names neither"),
        (["data_source=acereason_sft"], r"rl.steps=2: data_source.rl names neither"),
        ([*RL, "data.sft_budget=3"], r"data.sft_budget=3: must be null, because data_source.sft names neither"),
        ([*RL, "data_source.rl.files=a.jsonl"], r"data_source.rl.files=a.jsonl: must be a list, so write .a.jsonl."),
        ([*RL, "data_source.rl.files=[a]", "data_source.rl.split=x"], r"data_source.rl.split=x: only a repository has one; must be null"),
        ([*RL, "data_source.rl.repository=a/b"], r"data_source.rl.split=null: must be one of the repository's"),
        ([*RL, "+data_source.rl.fils=[a]"], r"data_source.rl.fils: there is no such key; did you mean data_source.rl.files?"),
        (
            [*RL, "data_source.rl.files=[a.jsonl]", "+data_source.rl.columns={promt: q}"],
            r"data_source.rl.columns.promt: unknown; did you mean prompt\?",
        ),
        (["data_source=file", "+data_source.benchmarks.sft={files: [a]}"], r"data_source.benchmarks.sft: must be a name"),
        (["data_source=file", "+data_source.benchmarks.x={}"], r"data_source.benchmarks.x: names neither"),
        (["data_source=reasoning_gym", "data.decontaminate_ngram=9"], r"data.decontaminate_ngram=9: must be null"),
        (["data_source=reasoning_gym", "data.rl_rows=null"], r"data.rl_rows=null: must be a number"),
        (["data_source=reasoning_gym", "sft.steps=1"], r"sft.steps=1: .* has no traces of a teacher"),
        (["data_source=reasoning_gym", "data_source.tasks=[]"], r"data_source.tasks=\[\]: must be a list of at least one"),
    ],
)  # fmt: skip
def test_contradictions_name_the_key_and_what_to_do(config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        config(*overrides)


# reasoning-gym


def test_tasks_come_in_turn_and_benchmarks_stay_as_they_are(config):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    given = (
        "data_source=reasoning_gym",
        "data_source.tasks=[{task: gcd}, {task: chain_sum, config: {max_terms: 3}}]",
    )
    first, other = (load_source(config(*given, "data.rl_rows=9", f"data.seed={seed}")) for seed in (0, 1))
    assert [row["data_source"] for row in first.rl_rows[:3]] == [
        *("reasoning_gym_gcd", "reasoning_gym_chain_sum", "reasoning_gym_gcd")
    ]
    assert [row["id"] for row in first.rl_rows] == [f"rl-{i}" for i in range(9)]
    assert first.benchmarks == other.benchmarks
    assert not {*map(prompt_text, first.rl_rows)} & {*map(prompt_text, other.rl_rows)}
    assert '"max_terms": 3' in first.rl_rows[1]["reward_model"]["ground_truth"]


def test_problems_of_a_benchmark_are_left_out_of_rl_and_counted(config, monkeypatch):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    real = reasoning_gym_source.reasoning_gym_rows
    monkeypatch.setattr(
        reasoning_gym_source, "reasoning_gym_rows", lambda task, size, seed, config: real(task, size, 0, config)
    )
    c = config("data_source=reasoning_gym", "data_source.tasks=[{task: chain_sum}]", "data.rl_rows=9")
    source = load_source(c)
    assert (len(source.rl_rows), source.bad_rows) == (5, {"rl": {"problem of a benchmark": 4}})


def test_an_unknown_task_names_its_key(config):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    c = config("data_source=reasoning_gym", "data_source.tasks=[{task: gcd}, {task: chain_sums}]")
    with pytest.raises(ConfigError, match=r"data_source.tasks.1.task=chain_sums: .*nearest: chain_sum"):
        load_source(c)
