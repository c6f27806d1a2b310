"""What `python -m analysis wandb` sends where, by name, by option and by wandb's environment variables."""

import json
import time

import pytest
import wandb

from analysis.__main__ import main
from analysis.commands import wandb_push
from analysis.runs.wandb_file import records

VARIABLES = (
    *("PROJECT", "ENTITY", "MODE", "DISABLED", "NAME", "TAGS", "RUN_GROUP", "DIR", "API_KEY", "BASE_URL"),
    *("RUN_ID", "RESUME"),
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.fixture(scope="module")
def runs(write_sweep, tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("push") / "runs", seeds=(0,))
    path = folder / "gppo-0" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "sweeps": {**record["sweeps"], "a b,c=d": {"clip_method": "gppo"}}}))
    return folder


def sent(folder):
    """The run record of the one offline file below a folder."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(100):  # wandb's service may still be writing
        for one in records(file):
            if one.WhichOneof("record_type") == "run":
                return one.run
        time.sleep(0.1)
    raise AssertionError(f"{file} holds no run")


@pytest.fixture
def no_claims(monkeypatch):
    """Judges no claim, which takes seconds, where nothing is sent."""
    monkeypatch.setattr(wandb_push, "judge_claims", lambda sweeps: [])


def push(runs, *arguments):
    return main(["wandb", *arguments, "--runs", str(runs)])


@pytest.mark.parametrize(
    ("name", "run_id", "group"),
    [
        ("figure2", "report-figure2", "figure2"),
        pytest.param("a b,c=d", "report-a-b-c-d", "a b,c=d", marks=pytest.mark.slow),
        pytest.param("gppo-0", "report-gppo-0", "figure2", marks=pytest.mark.slow),
        pytest.param("cisp", "report-cispo-0", "figure2", marks=pytest.mark.slow),
    ],
)
def test_a_report_is_found_by_sweep_by_run_and_by_its_beginning(name, run_id, group, runs, tmp_path):
    assert push(runs, name, "--offline", "--dir", str(tmp_path)) == 0
    run = sent(tmp_path)
    assert (run.run_id, run.run_group, run.display_name) == (run_id, group, run.display_name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("figure3", "figure3: no finished runs; there are some of figure2"),
        ("none-0", "run none-0 is not finished: failed"),
        ("c", "ambiguous; the beginning of 2 runs: cispo-0, clip_higher-0"),
        ("", "an empty name"),
        ("gpo-0", "did you mean gppo-0"),
    ],
)
def test_a_name_of_nothing_is_one_line(name, words, runs, tmp_path, capsys):
    assert push(runs, name, "--offline", "--dir", str(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not (tmp_path / "wandb").exists()


@pytest.mark.slow
def test_variables_hold_where_no_option_says_otherwise(runs, tmp_path, monkeypatch, capsys):
    for name, value in (("PROJECT", "theirs"), ("ENTITY", "team"), ("TAGS", "a, b"), ("MODE", "offline")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "there"))
    monkeypatch.setenv("WANDB_NAME", "my name")
    monkeypatch.setenv("WANDB_RUN_GROUP", "my group")
    assert push(runs, "figure2") == 0
    run = sent(tmp_path / "there")
    assert (run.project, run.entity, [*run.tags], run.run_group) == ("theirs", "team", ["a", "b"], "figure2")
    said = capsys.readouterr().err
    assert "WANDB_NAME=my name has no effect" in said and "WANDB_RUN_GROUP=my group has no effect" in said
    options = ["--project", "mine", "--entity", "me", "--dir", str(tmp_path / "here"), "--offline"]
    assert push(runs, "figure2", *options) == 0
    run = sent(tmp_path / "here")
    assert (run.project, run.entity) == ("mine", "me")


@pytest.mark.parametrize(
    ("variable", "value", "options", "expected"),
    [
        ("WANDB_MODE", "disabled", [], "off"),
        ("WANDB_DISABLED", "true", [], "off"),
        pytest.param("WANDB_DISABLED", "1", ["--offline"], "offline", marks=pytest.mark.slow),
        pytest.param("WANDB_DISABLED", "false", ["--offline"], "offline", marks=pytest.mark.slow),
        ("WANDB_MODE", "dryrun", [], "offline"),
        pytest.param("WANDB_MODE", "online", ["--offline"], "offline", marks=pytest.mark.slow),
        ("WANDB_MODE", "disabled", ["--offline"], "offline"),
        ("WANDB_MODE", "offline", ["--online"], "online"),
        ("WANDB_MODE", "", [], "online"),
        pytest.param("WANDB_DISABLED", "", [], "online", marks=pytest.mark.slow),
    ],
)
def test_the_mode_is_the_options_then_the_environments(
    variable, value, options, expected, runs, no_claims, tmp_path, monkeypatch, capsys
):
    modes = []

    def init(**settings):
        modes.append(settings["mode"])
        raise wandb.errors.UsageError("stop here")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv(variable, value)
    assert push(runs, "figure2", *options, "--dir", str(tmp_path)) == 1
    said = capsys.readouterr().err
    assert (
        (modes == [] and f"{variable}={value}: nothing is sent" in said)
        if expected == "off"
        else modes == [expected]
    )


def test_a_mode_that_wandb_has_not_is_one_line(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    assert push(runs, "figure2", "--dir", str(tmp_path)) == 1
    assert "WANDB_MODE=onlin: must be one of" in capsys.readouterr().err


def test_without_a_login_online_is_one_line(runs, no_claims, tmp_path, monkeypatch, capsys):
    def init(**_):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    assert push(runs, "figure2", "--dir", str(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: wandb: No API key")
