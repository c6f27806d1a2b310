"""wandb's environment variables: below explicit keys, above our defaults, and named where they have no effect."""

import logging
import time

import pytest
import wandb

from analysis.runs.wandb_file import records
from klear_lab.config import ConfigError
from klear_lab.identity import run_id
from klear_lab.storage.run_folder import RunFolder
from klear_lab.tracking import mode_of_environment, start_wandb
from klear_lab.validation import parse

NAMES = (
    *("PROJECT", "ENTITY", "MODE", "DISABLED", "NAME", "TAGS", "RUN_GROUP", "DIR", "API_KEY", "BASE_URL"),
    *("RUN_ID", "RESUME", "NOTES", "JOB_TYPE"),
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.fixture
def composed():
    """Composes a config of typed overrides, with the logger that is the default."""
    from hydra import compose, initialize_config_dir

    from klear_lab.config import register

    register()

    def make(*overrides):
        from pathlib import Path

        with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
            return compose("config", overrides=["scale=smoke", *overrides])

    return make


def run_of(file):
    """The file's record of its run, which another process of wandb's writes: waited for where it has much to do."""
    for _ in range(600):
        if found := [r.run for r in records(file) if r.WhichOneof("record_type") == "run"]:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"{file} has no record of a run")


@pytest.fixture
def started(composed, tmp_path, caplog):
    """Starts and ends a wandb run of typed overrides; returns its settings, its record and the lines said."""

    def start(*overrides, sweep="methods"):
        folder = RunFolder(tmp_path / "runs" / "abcdef012345")
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / "run.json").write_text("{}")
        folder.join_sweep("abcdef012345", 0, sweep, {"clip_method": "gppo"})
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run = start_wandb(folder, parse(composed(*overrides)), "gppo seed 0", {})
        said = [record.getMessage() for record in caplog.records]
        if run is None:
            return None, None, said
        settings = run.settings
        run.finish()
        (file,) = tmp_path.rglob("*.wandb")
        return settings, run_of(file), said

    return start


def test_without_variables_everything_is_ours(started, tmp_path):
    settings, run, said = started()
    assert (run.project, run.entity, run.run_group) == ("klear_lab", "", "methods") and said == []
    assert settings.mode == "offline" and (tmp_path / "runs" / "abcdef012345" / "wandb").is_dir()


def test_variables_win_over_our_defaults(started, monkeypatch, tmp_path):
    values = {"PROJECT": "theirs", "ENTITY": "team", "TAGS": "a, b", "DIR": str(tmp_path / "there")}
    values |= {"BASE_URL": "https://wandb.example.org", "NOTES": "a note", "JOB_TYPE": "train"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # it reads what it follows itself once a process
    settings, run, said = started()
    wandb.teardown()
    assert (run.project, run.entity, run.notes, run.job_type) == (
        "theirs",
        "team",
        "a note",
        "train",
    ) and said == []
    assert [*run.tags][:2] == ["a", "b"] and "smoke" in run.tags
    assert settings.base_url == "https://wandb.example.org"
    assert [*tmp_path.glob("there/wandb/offline-run-*-abcdef012345")] and not [*tmp_path.glob("runs/*/wandb")]


def test_an_earlier_attempts_file_is_replaced_in_wandbs_folder_too(started, monkeypatch, tmp_path):
    other = tmp_path / "there" / "wandb" / "offline-run-20260101_000000-another"
    other.mkdir(parents=True)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "there"))
    started()
    started()
    assert len([*tmp_path.glob("there/wandb/offline-run-*-abcdef012345")]) == 1 and other.is_dir()


def test_explicit_keys_win_over_variables_and_a_line_says_so(started, monkeypatch):
    for name, value in {"PROJECT": "theirs", "ENTITY": "team", "TAGS": "a,b", "MODE": "disabled"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    keys = ["logger.project=mine", "logger.entity=me", "logger.tags=[c]", "logger=offline"]
    _, run, said = started(*keys)
    assert (run.project, run.entity, run.tags[0]) == ("mine", "me", "c") and "a" not in run.tags
    assert said == [
        "WANDB_MODE=disabled has no effect: logger.wandb_mode=offline is set (logger=offline)",
        "WANDB_PROJECT=theirs has no effect: logger.project=mine is set",
        "WANDB_ENTITY=team has no effect: logger.entity=me is set",
        "WANDB_TAGS=a,b has no effect: logger.tags=c is set",
    ]


@pytest.mark.parametrize("name", ["NAME", "RUN_GROUP", "RUN_ID"])
def test_what_arms_and_resuming_need_is_ours_and_a_line_says_so(name, started, monkeypatch):
    monkeypatch.setenv(f"WANDB_{name}", "theirs")
    _, run, said = started()
    assert (run.display_name, run.run_group, run.run_id) == ("gppo seed 0", "methods", "abcdef012345")
    (line,) = said
    assert line.startswith(f"WANDB_{name}=theirs has no effect: ")


def test_a_run_of_no_sweep_takes_the_group_of_the_environment(started, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    _, run, said = started(sweep=None)
    assert run.run_group == "theirs" and said == []


@pytest.mark.parametrize(
    ("variables", "keys", "mode"),
    [
        ({"MODE": "disabled"}, [], None),
        ({"DISABLED": "true"}, [], None),
        ({"DISABLED": "1"}, [], None),
        ({"DISABLED": "false"}, [], "offline"),
        ({"DISABLED": ""}, [], "offline"),
        ({"MODE": ""}, [], "offline"),
        ({"MODE": "offline"}, [], "offline"),
        ({"MODE": "dryrun"}, [], "offline"),
        ({"DISABLED": "true"}, ["logger=offline"], "offline"),
        ({"DISABLED": "true"}, ["logger.wandb_mode=offline"], "offline"),
        ({"MODE": "online"}, ["logger=none"], None),
        ({"MODE": "online"}, ["logger=offline"], "offline"),
        ({"MODE": "online", "DISABLED": "yes"}, [], None),
    ],
)
def test_the_mode_is_the_configs_then_the_environments(variables, keys, mode, started, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    settings, _, said = started(*keys)
    assert (settings and settings.mode) == mode
    assert bool(said) == bool(keys)


@pytest.mark.parametrize(("word", "mode"), [("online", "online"), ("run", "online"), ("ONLINE", "online")])
def test_online_is_followed_too(word, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", word)
    assert mode_of_environment() == mode


def test_a_mode_that_wandb_has_not_is_named(started, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(ConfigError, match="WANDB_MODE=onlin: must be one of online, offline, disabled"):
        started()


def test_what_wandb_itself_refuses_is_one_message(started, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    wandb.teardown()
    with pytest.raises(ConfigError, match="perhaps one of a WANDB_ variable: .*onlin"):
        started("logger=offline")
    wandb.teardown()


def test_a_folder_that_cannot_be_made_is_named(started, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", "/proc/nowhere")
    with pytest.raises(ConfigError, match="WANDB_DIR=/proc/nowhere: can't be written"):
        started()


def test_the_logger_and_its_variables_are_no_part_of_a_runs_identity(composed, monkeypatch):
    ids = {run_id(composed(*keys)) for keys in ([], ["logger=none"], ["logger=wandb", "logger.project=mine"])}
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert {run_id(composed())} == ids and len(ids) == 1
