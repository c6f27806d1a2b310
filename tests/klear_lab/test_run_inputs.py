"""Finished runs whose files or code have changed are kept, and the message names what changed; unfinished ones are
made anew, saying so."""

import json
import os
import shutil
from pathlib import Path

import pytest

from klear_lab import pipeline, validation
from klear_lab.config import ConfigError
from klear_lab.data import stage
from klear_lab.data.stage import prepare_data_stage
from klear_lab.engines.registry import ENGINES
from klear_lab.identity import content_hash
from klear_lab.rl import trainer
from klear_lab.storage.files import StorageError
from klear_lab.storage.interruption import Stop
from klear_lab.validation import parse
from support.models import save_model
from support.rows import rl_row, write
from support.runs import SIZES, same_result

ROOT = Path(__file__).parents[2]
MODEL = ["model=path", "model.path=model", "rl.max_response_tokens=8", "sft.max_tokens=200", "sft.steps=1"]
CHANGED = "this run is finished, and {} since; delete or move the folder .*, or choose another runs_dir"


@pytest.fixture
def small(run, tmp_path, monkeypatch):
    """A function from overrides to the folder of a small run, in a working directory of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *overrides: run(*SIZES, *overrides)


@pytest.fixture
def of_model(small):
    save_model(Path("model"))
    return lambda *overrides: small(*MODEL, *overrides)


@pytest.fixture
def of_rows(of_model):
    write(Path("a.jsonl"), [rl_row(id=None, prompt=f"1+{i}?") for i in range(5)])
    given = ["data_source=file", "sft.steps=0", "rl.steps=0", "data_source.rl.files=[a.jsonl]"]
    return lambda *overrides: of_model(*given, *overrides)


def files_of(folder):
    """All files of a run with their content."""
    return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def rewrite(folder, inputs):
    """Changes what run.json says of the inputs by hand; None leaves it out."""
    record = json.loads((folder.path / "run.json").read_text())
    del record["inputs"]
    record |= {} if inputs is None else {"inputs": inputs}
    (folder.path / "run.json").write_text(json.dumps(record))


def fail_in_rl(start, monkeypatch):
    """Starts a run that fails at its first RL step."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start()


def test_a_finished_run_is_kept_when_its_model_is_copied_touched_and_called_from_elsewhere(
    of_model, tmp_path, monkeypatch
):
    first = of_model()
    for file in Path("model").iterdir():
        os.utime(file, ns=(0, 0))
    (Path("model") / ".cache").mkdir()
    (Path("model") / ".cache" / "x.lock").touch()
    (Path("model") / "README.md").write_text("# Mine")
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree("model", tmp_path / "elsewhere" / "model")
    before = files_of(first)
    of_model()
    monkeypatch.chdir(tmp_path / "elsewhere")
    of_model()
    assert files_of(first) == before


def test_a_finished_run_whose_model_changed_is_never_touched(of_model):
    first = of_model()
    before = files_of(first)
    config = Path("model/config.json")
    content = config.read_text()
    config.write_text(content + " ")
    for _ in range(2):
        with pytest.raises(StorageError, match=CHANGED.format("model.path: config.json has changed")) as error:
            of_model()
        assert "\n" not in str(error.value) and str(first.path) in str(error.value)
        assert files_of(first) == before
    config.write_text(content)
    assert of_model().record == first.record


def test_a_finished_run_of_rows_that_changed_is_never_touched_and_a_moved_one_made_anew(of_rows, tmp_path):
    first = of_rows()
    before = files_of(first)
    Path("a.jsonl").write_text(Path("a.jsonl").read_text().replace("1+4?", "1+5?"))
    with pytest.raises(StorageError, match=CHANGED.format("data_source.rl: a.jsonl has changed")):
        of_rows()
    assert files_of(first) == before
    first.path.rename(tmp_path / "kept")
    second = of_rows().record
    assert (
        second["stages"]["data"]["cache_key"]
        != json.loads((tmp_path / "kept" / "run.json").read_text())["stages"]["data"]["cache_key"]
    )
    assert not second["stages"]["data"]["from_cache"]


def test_rows_that_are_copied_or_touched_are_found_prepared(of_rows, tmp_path, monkeypatch):
    of_rows()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree("model", tmp_path / "elsewhere" / "model")
    shutil.copy("a.jsonl", tmp_path / "elsewhere" / "a.jsonl")
    monkeypatch.chdir(tmp_path / "elsewhere")
    stages = of_rows("eval.temperature=1").record["stages"]
    assert stages["data"]["from_cache"]


def test_an_sft_of_copied_weights_is_found_and_of_another_tokenizer_is_not(of_model, monkeypatch, tmp_path):
    of_model("rl.steps=0")
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree("model", tmp_path / "elsewhere" / "model")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert of_model("rl.steps=0", "seed=1").record["stages"]["sft"]["from_cache"]
    tokenizer = Path("model/tokenizer_config.json")
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert not of_model("rl.steps=0", "seed=2").record["stages"]["sft"]["from_cache"]


def test_a_finished_run_of_an_older_stage_is_never_touched(small, monkeypatch):
    first = small()
    before = files_of(first)
    monkeypatch.setattr(pipeline, "STAGE_VERSIONS", {**pipeline.STAGE_VERSIONS, "rl": 99})
    with pytest.raises(
        StorageError, match=CHANGED.format(r"the code's rl stage has changed \(version 99, was \d+\)")
    ):
        small()
    assert files_of(first) == before
    shutil.rmtree(first.path)
    assert small().record["inputs"]["stage_versions"]["rl"] == 99


@pytest.mark.parametrize(
    "inputs",
    [None, {}, {"stage_versions": pipeline.STAGE_VERSIONS, "weights": "0123456789ab", "data_files": None}, {"weights": [3]}],
)  # fmt: skip
def test_a_finished_run_that_does_not_say_what_it_was_made_from_is_kept_with_a_warning(of_model, caplog, inputs):
    """As older versions wrote it: nothing, or a hash of times and paths."""
    first = of_model()
    rewrite(first, inputs)
    record = first.record
    before = files_of(first)
    caplog.clear()
    of_model()
    assert "run.json doesn't say which files the run was made from; it is kept" in caplog.text
    assert first.record == record
    assert {**files_of(first), first.path / "run.json": before[first.path / "run.json"]} == before


def test_an_unfinished_run_that_does_not_say_it_is_made_anew_saying_so(of_model, monkeypatch, caplog, tmp_path):
    fail_in_rl(of_model, monkeypatch)
    (record,) = (tmp_path / "runs").glob("*/run.json")
    rewrite(pipeline.RunFolder(record.parent), None)
    caplog.clear()
    again = of_model()
    assert "doesn't say which files it was made from: the unfinished run is made anew" in caplog.text
    same_result(again, of_model(f"runs_dir={tmp_path / 'other'}"))


def test_an_unfinished_run_whose_files_changed_is_made_anew_saying_so(of_model, monkeypatch, caplog, tmp_path):
    fail_in_rl(of_model, monkeypatch)
    Path("model/config.json").write_text(Path("model/config.json").read_text() + " ")
    again = of_model()
    assert "model.path: config.json has changed: the unfinished run is made anew" in caplog.text
    same_result(again, of_model(f"runs_dir={tmp_path / 'other'}"))


def test_an_unfinished_run_of_an_older_stage_is_made_anew_saying_so(small, monkeypatch, caplog):
    fail_in_rl(small, monkeypatch)
    monkeypatch.setattr(pipeline, "STAGE_VERSIONS", {**pipeline.STAGE_VERSIONS, "rl": 99})
    assert small().record["status"] == "finished"
    assert "the code's rl stage has changed (version 99, was" in caplog.text


def test_a_first_start_and_one_that_goes_on_say_nothing_of_it(of_model, monkeypatch, caplog):
    fail_in_rl(of_model, monkeypatch)
    of_model()
    assert "anew" not in caplog.text and "doesn't say" not in caplog.text


def test_a_file_that_is_replaced_while_it_is_read_leaves_nothing_under_its_hash(of_rows, monkeypatch, config):
    real = stage.prepare_data

    def replace(*arguments):
        prepared = real(*arguments)
        Path("a.jsonl").write_text(Path("a.jsonl").read_text().replace("1+4?", "1+5?"))
        return prepared

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="a.jsonl has changed while it was read"):
        patch.setattr(stage, "prepare_data", replace)
        of_rows()
    assert of_rows().record["status"] == "finished"


def test_a_file_that_is_replaced_during_the_run_is_noticed_at_the_next_start(of_rows, monkeypatch):
    real = ENGINES["local"]

    def replace(*arguments):
        Path("a.jsonl").write_text(Path("a.jsonl").read_text().replace("1+4?", "1+5?"))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "local", replace)
        assert of_rows().record["status"] == "finished"
    with pytest.raises(StorageError, match="a.jsonl has changed since"):
        of_rows()


def test_a_missing_or_unreadable_file_names_itself_and_a_finished_run_does_without(of_rows):
    done = of_rows()
    file, content = Path("a.jsonl"), Path("a.jsonl").read_bytes()
    file.unlink()
    assert of_rows().record == done.record
    if Path("/proc/self/mem").exists():
        file.symlink_to("/proc/self/mem")
        assert of_rows().record == done.record
        with pytest.raises(ConfigError, match=r"^data_source.rl: a.jsonl: can't be read \(Input/output error\)"):
            of_rows("seed=1")
        file.unlink()
    shutil.rmtree("model")
    file.write_bytes(content)
    assert of_rows().record == done.record


def test_keys_of_the_embedded_world_are_what_they_were(config, tmp_path):
    """A change of these makes every finished sweep's stages anew."""
    c = config(f"cache_dir={tmp_path}")
    assert prepare_data_stage(c, Stop()).key == "47db791d5452"
    assert content_hash({"weights": None}) == content_hash(
        {"weights": pipeline.weights_fingerprint(c.model, tmp_path)}
    )


def test_what_contradicts_is_looked_for_until_a_run_is_finished(run, composed_config, tmp_path, monkeypatch):
    settings = (f"runs_dir={tmp_path / 'runs'}", "sft.steps=1", "rl.steps=1")
    folder = run(*settings[1:])
    monkeypatch.setattr(validation, "contradictions", lambda config: ["rl.steps: contradicts"])
    assert parse(composed_config(*settings)).rl.steps == 1
    with pytest.raises(ConfigError, match="contradicts"):
        parse(composed_config(*settings, "seed=1"))
    folder.update_record(status="running")
    with pytest.raises(ConfigError, match="contradicts"):
        parse(composed_config(*settings))
    (folder.path / "run.json").write_text("{")  # damaged: its own message comes where the run starts
    with pytest.raises(ConfigError, match="contradicts"):
        parse(composed_config(*settings))
