"""Damaged runs: each kind of damage is named with run and file, and stops nothing that is said of other runs."""

import itertools
import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.__main__ import main
from analysis.commands.compare import compare_runs
from analysis.commands.settle import BUDGET_SPENT
from analysis.errors import RunFolderError
from analysis.runs.choose import choose_runs
from analysis.runs.comparable import comparable_sets
from analysis.runs.frames import load_runs
from analysis.sweeps.from_runs import keep_sweep


def in_record(**changes):
    """Damage that changes keys of run.json."""

    def damage(run):
        path = run / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def without_key(key):
    """Damage that removes a key of run.json."""

    def damage(run):
        path = run / "run.json"
        record = json.loads(path.read_text())
        del record[key]
        path.write_text(json.dumps(record))

    return damage


def content(name, data):
    """Damage that replaces a file."""
    return lambda run: (run / name).write_bytes(data)


def last_line(text):
    """Damage that adds a line to metrics.jsonl."""

    def damage(run):
        with (run / "metrics.jsonl").open("a") as file:
            file.write(text)

    return damage


def column(name, value):
    """Damage that fills a column of evaluations.parquet."""

    def damage(run):
        path = run / "evaluations.parquet"
        pd.read_parquet(path).assign(**{name: value}).to_parquet(path)

    return damage


def without_evaluations(where, tells=""):
    """Damage that takes rows from evaluations.parquet, and adds a line to metrics.jsonl that tells of them."""

    def damage(run):
        last_line(tells)(run)
        path = run / "evaluations.parquet"
        pd.read_parquet(path).query(f"not ({where})").to_parquet(path)

    return damage


def in_config(line):
    """Damage that adds a line to config.yaml."""

    def damage(run):
        with (run / "config.yaml").open("a") as file:
            file.write(line + "\n")

    return damage


def cut_in_half(name):
    """Damage that leaves half of a file."""

    def damage(run):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    return damage


def no_rows(run):
    frame = pd.read_parquet(run / "evaluations.parquet")
    frame.head(0).to_parquet(run / "evaluations.parquet")


DAMAGES = {
    "record not JSON": (content("run.json", b"{half: ["), "run.json"),
    "record half": (cut_in_half("run.json"), "run.json"),
    "record empty": (content("run.json", b""), "run.json"),
    "record a list": (content("run.json", b"[1, 2]"), "not an object but a list"),
    "record a number": (content("run.json", b"7"), "not an object but a number 7"),
    "record null": (content("run.json", b"null"), "not an object but null"),
    "record zeros": (content("run.json", bytes(100)), "run.json"),
    "record nested": (content("run.json", b"[" * 100_000), "run.json"),
    "record Latin-1": (content("run.json", '{"run_id": "Läufer"}'.encode("latin-1")), "run.json: not UTF-8"),
    "record UTF-16": (content("run.json", "{}".encode("utf-16")), "run.json: not UTF-8"),
    "no run_id": (without_key("run_id"), "lacks ['run_id']"),
    "no seed": (without_key("seed"), "lacks ['seed']"),
    "no status": (without_key("status"), "lacks ['status']"),
    "run_id a number": (in_record(run_id=12), "run_id must be text, not a number 12"),
    "run_id null": (in_record(run_id=None), "run_id must be text, not null"),
    "run_id empty": (in_record(run_id=" "), "run_id is empty"),
    "status a list": (in_record(status=["finished"]), "status must be text"),
    "status another": (in_record(status="done"), "status 'done' is none of"),
    "seed text": (in_record(seed="0"), 'seed must be a whole number, not text "0"'),
    "seed a fraction": (in_record(seed=0.5), "seed must be a whole number"),
    "seed a switch": (in_record(seed=True), "seed must be a whole number, not a switch true"),
    "seed a list": (in_record(seed=[0]), "seed must be a whole number"),
    "seed huge": (in_record(seed=-(10**30)), "has more than 64 bits"),
    "sweeps a list": (in_record(sweeps=["figure2"]), "sweeps must be an object, not a list"),
    "sweeps text": (in_record(sweeps="figure2"), "sweeps must be an object"),
    "sweeps of text": (in_record(sweeps={"figure2": "gppo"}), "sweeps.figure2 must be an object"),
    "sweeps of lists": (in_record(sweeps={"figure2": ["gppo"]}), "sweeps.figure2 must be an object"),
    "arm text": (in_record(arm="gppo"), "arm must be an object"),
    "arm nested": (in_record(arm={"clip_method": {"name": "gppo"}}), "the arm's clip_method must be one value"),
    "stages a list": (in_record(stages=[1]), "stages must be an object"),
    "stages of numbers": (in_record(stages={"rl": 48.4}), "stages.rl must be an object"),
    "seconds text": (in_record(stages={"rl": {"seconds": "48"}}), "stages.rl.seconds must be a finite number"),
    "seconds none": (
        in_record(stages={"rl": {"seconds": float("nan")}}),
        "must be a finite number, not a number NaN",
    ),
    "seconds endless": (
        in_record(stages={"sft": {"seconds": float("inf")}}),
        "stages.sft.seconds must be a finite",
    ),
    "seconds huge": (in_record(stages={"rl": {"seconds": 10**400}}), "stages.rl.seconds must be a finite number"),
    "from_cache text": (in_record(stages={"sft": {"from_cache": "yes"}}), "from_cache must be true or false"),
    "hardware text": (in_record(hardware="cpu"), "hardware must be an object"),
    "versions a list": (in_record(versions=["torch"]), "versions must be an object"),
    "commit a number": (in_record(git_commit=123), "git_commit must be text"),
    "command text": (in_record(command="python -m klear_lab.run"), "command must be a list"),
    "command of numbers": (in_record(command=["python", 3]), "command must be a list of words"),
    "error a list": (in_record(error=["boom"]), "error must be text"),
    "started a number": (in_record(started=1735725600), "started must be text"),
    "metrics half": (cut_in_half("metrics.jsonl"), "metrics.jsonl, line"),
    "metrics a list": (last_line("[1, 2]\n"), "not a metrics object (it is a list [1, 2])"),
    "metrics text": (last_line('"rl"\n'), "not a metrics object"),
    "metrics without stage": (last_line('{"step": 13}\n'), "not a metrics object (stage is null"),
    "metrics without step": (last_line('{"stage": "rl"}\n'), "step is null"),
    "metrics stage a number": (last_line('{"stage": 1, "step": 13}\n'), "stage is a number 1"),
    "metrics step text": (last_line('{"stage": "rl", "step": "13"}\n'), 'step is text "13"'),
    "metrics step a fraction": (last_line('{"stage": "rl", "step": 1.5}\n'), "step is a number 1.5"),
    "metrics step huge": (last_line('{"stage": "rl", "step": 1000000000}\n'), "step 1000000000 is none from 0 to"),
    "metrics step negative": (last_line('{"stage": "sft", "step": -3}\n'), "step -3 is none from 0 to 1000000"),
    "metrics value text": (last_line('{"stage": "rl", "step": 13, "a": "0.5"}\n'), "a of rl step 13 is no number"),
    "metrics value a list": (last_line('{"stage": "rl", "step": 13, "a": [1]}\n'), "a of rl step 13 is no number"),
    "metrics value huge": (last_line('{"stage": "rl", "step": 13, "a": 1%s}\n' % ("0" * 400)), "a of rl step 13"),
    "metrics empty line": (last_line("\n"), "metrics.jsonl, line"),
    "metrics not UTF-8": (content("metrics.jsonl", b"\xff\xfe{}"), "metrics.jsonl: not UTF-8"),
    "metrics a folder": (
        lambda run: ((run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()),
        "metrics.jsonl",
    ),
    "config not UTF-8": (content("config.yaml", b"a: \xe4"), "config.yaml: not UTF-8"),
    "config a list": (content("config.yaml", b"- 1"), "config.yaml: no clip_method.name"),
    "config method text": (in_config("clip_method: gppo"), "config.yaml: no clip_method.name"),
    "config name a number": (in_config("clip_method: {name: 5}"), "config.yaml: no clip_method.name"),
    "config seed a list": (in_config("seed: [0]"), "config.yaml: seed must be a whole number"),
    "config model text": (in_config("model: tiny"), "config.yaml: model has no keys of its own"),
    "config source a list": (in_config("data_source: [chain]"), "config.yaml: data_source has no keys"),
    "config with dates": (in_config("when: 2026-01-01"), "config.yaml: holds more than text"),
    "config date not one": (in_config("when: 2026-13-45"), "config.yaml: not YAML"),
    "evaluations empty": (content("evaluations.parquet", b""), "evaluations.parquet: cannot be read"),
    "evaluations half": (cut_in_half("evaluations.parquet"), "evaluations.parquet: cannot be read"),
    "evaluations lost": (
        lambda run: (run / "evaluations.parquet").unlink(),
        "evaluations.parquet: missing, though",
    ),
    "evaluations without rows": (no_rows, "evaluations.parquet: has no rows, though"),
    "no evaluation of a step": (
        without_evaluations("step == 12", '{"stage": "rl", "step": 12, "eval/chain8/avg@4": 0.5}\n'),
        "evaluations.parquet: lacks chain8 at step 12, though metrics.jsonl has eval/chain8/avg@4",
    ),
    "no evaluation of a benchmark": (
        without_evaluations("benchmark == 'chain6'"),
        "lacks chain6 at step 0, though",
    ),
    "seed another": (in_record(seed=3), "run.json: seed is 3, though config.yaml has 0"),
    "benchmark a number": (column("benchmark", 6), "column benchmark must be text, not int64"),
    "prompt a number": (column("prompt_id", 6), "column prompt_id must be text"),
    "step text": (column("step", "4"), "column step must be whole numbers"),
    "step with gaps": (column("step", [None, *[4] * 639]), "evaluations.parquet: column step"),
    "correct text": (column("correct", "yes"), "column correct must be true or false"),
    "correct with gaps": (column("correct", pd.array([None, *[True] * 639], dtype="boolean")), "has 1 gaps"),
    "sample a list": (column("sample", pd.Series([[0]] * 640)), "column sample must be whole numbers"),
    "all the same": (column("sample", 0), "stands twice"),
}
# Read later than the others, and of some runs only.
LATE = {
    "probes not JSON": (content("probes.jsonl", b"no JSON\n"), "probes.jsonl: not JSON lines"),
    "probes a list": (content("probes.jsonl", b"[]\n"), "probes.jsonl: not JSON lines"),
    "probes of numbers": (content("probes.jsonl", b'{"most_clipped": {"low": [1]}}\n'), "probes.jsonl: not JSON"),
    "probes not UTF-8": (content("probes.jsonl", b"\xff\n"), "probes.jsonl: not UTF-8"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run_is_named_and_no_other_is_lost_with_it(kind, write_run, tmp_path):
    damage, words = DAMAGES[kind]
    good, bad = write_run(tmp_path, "gppo", 0), write_run(tmp_path, "cispo", 0)
    damage(bad)
    frames = load_runs(tmp_path)
    assert [*frames.damaged] == [bad.name] and [*frames.records] == [good.name], frames.damaged
    assert words in frames.damaged[bad.name] and str(bad) in frames.damaged[bad.name]
    assert set(frames.scores["run_id"]) == set(frames.metrics["run_id"]) == {good.name}
    with pytest.raises(RunFolderError, match="the run is damaged: .*" + bad.name):
        choose_runs(frames, [good.name, bad.name])


@pytest.mark.parametrize("kind", LATE)
def test_damage_that_is_found_late_costs_the_one_run_too(kind, write_sweep, tmp_path, capsys):
    damage, words = LATE[kind]
    runs = write_sweep(tmp_path / "runs", seeds=(0, 1))
    damage(runs / "gppo-1")
    with pytest.raises(RunFolderError, match=words):
        keep_sweep(load_runs(runs), "figure2")
    assert main(["keep", "figure2", "--runs", str(runs), "--out", str(tmp_path / "kept")]) == 0
    assert words in capsys.readouterr().err
    assert len((tmp_path / "kept" / "figure2.jsonl").read_text().splitlines()) == 1 + 5
    for command in (["next"], ["claims"], ["settle", "C7", "--seeds", "1"]):
        assert main([*command, "--runs", str(runs)]) in (0, BUDGET_SPENT)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "figure2" not in line]
        assert "left out: run gppo-1: " in line and words in line


@pytest.mark.slow
def test_a_report_lists_all_damaged_runs_and_says_of_the_others_what_it_said_before(
    write_sweep, write_run, tmp_path, capsys
):
    runs, out = write_sweep(tmp_path / "runs"), tmp_path / "report"
    command = ["--runs", str(runs), "--out", str(out)]
    assert main(command) == 0
    numbers = [out / f"{stem}.csv" for stem in ("final_scores", "differences", "claims", "figure2_scores")]
    before = [path.read_text() for path in numbers]
    capsys.readouterr()
    every = {**DAMAGES, **LATE}
    for number, (damage, _) in enumerate(every.values()):
        damage(write_run(runs, "gppo", 100 + number, score=lambda step: 0.0))
    shutil.copytree(runs / "gppo-0", runs / "copy")
    torn = write_run(runs, "cispo", 99, score=lambda step: 0.0)
    (torn / "rollouts").mkdir()
    (torn / "rollouts" / "step_12.parquet").write_text("no token record")
    assert main(command) == 0
    assert [path.read_text() for path in numbers] == before
    printed, page = capsys.readouterr().err, (out / "index.html").read_text()
    for number, kind in enumerate(every):
        assert f"run gppo-{100 + number}: " in printed and f"<b>gppo-{100 + number}</b>: " in page, kind
    for name in ("copy", "cispo-99"):
        assert f"run {name}: " in printed and f"<b>{name}</b>: " in page
    assert "step_12.parquet: not a token record" in page and "Remove the copy" in page
    assert len(printed.splitlines()) == len(every) + 2 and "Traceback" not in printed
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_runs_that_are_all_damaged_make_a_page_that_says_so(write_run, tmp_path):
    content("run.json", b"{")(write_run(tmp_path / "runs"))
    command = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert main(command) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "No run can be read" in page and re.search("run.json, line 1: not JSON", page)


def test_fields_that_older_runs_lack_are_no_damage(write_run, tmp_path):
    run = write_run(tmp_path)
    for key in (
        "sweep",
        "arm",
        "sweeps",
        "stages",
        "versions",
        "hardware",
        "git_commit",
        "command",
        "error",
        "started",
    ):
        without_key(key)(run)
    frames = load_runs(tmp_path)
    assert not frames.damaged and len(comparable_sets(frames)) == 1
    assert compare_runs(frames, [run.name]).runs["arm"].tolist() == ["gppo"]
    in_record(sweeps=None, arm=None, stages=None, versions=None, hardware=None, command=None)(run)
    assert not load_runs(tmp_path).damaged


def test_a_sweep_whose_runs_name_other_keys_reads_the_missing_ones_from_the_config(write_run, tmp_path):
    first = write_run(tmp_path, "gppo", 0)
    rate = yaml.safe_load((first / "config.yaml").read_text())["rl"]["learning_rate"]
    in_record(sweeps={"figure2": {}})(write_run(tmp_path, "cispo", 0))
    in_record(sweeps={"figure2": {"rl.learning_rate": rate}})(write_run(tmp_path, "gppo", 1))
    arms = [run["arm"] for run in keep_sweep(load_runs(tmp_path), "figure2").runs]
    assert arms.count({"clip_method": "gppo", "rl.learning_rate": rate}) == 2
    assert {"clip_method": "cispo", "rl.learning_rate": rate} in arms


def test_evaluations_that_metrics_tell_nothing_of_may_be_missing_and_so_may_those_of_unfinished_runs(
    write_run, tmp_path
):
    without_evaluations("benchmark == 'chain8' or step == 12")(write_run(tmp_path, "gppo", 0))
    without_evaluations("benchmark == 'chain6'")(write_run(tmp_path, "gppo", 1, status="running"))
    last_line('{"stage": "rl", "step": 12, "eval/chain6/avg@4": null}\n')(
        write_run(tmp_path, "gppo", 2, evaluated=(0, 4, 8))
    )
    assert not load_runs(tmp_path).damaged


def test_endless_numbers_of_one_step_stop_nothing(write_sweep, tmp_path, capsys):
    runs = write_sweep(tmp_path / "runs", seeds=(0,))
    names = ("perf/tokens_per_s", "time/rollout_s", "time/reward_s", "time/train_s", "optim/grad_norm", "loss/sft")
    for step, run in itertools.product((3, 4), runs.glob("*-0")):
        values = [math.inf if step == 4 else 2.0, *[math.inf if step == 4 else 1.0] * (len(names) - 1)]
        last_line(json.dumps({"stage": "rl", "step": step, **dict(zip(names, values, strict=True))}) + "\n")(run)
    assert {run["tokens"] for run in keep_sweep(load_runs(runs), "figure2").runs} == {6}
    for name in ("claims", "next", "figure2_cost", "figure2_arms", "final_scores"):
        assert main([name, "--runs", str(runs)]) == 0
    assert not re.search(r"\binf\b", capsys.readouterr().out)


def test_numbers_that_numpy_reads_from_text_are_damage_but_none_and_infinity_are_not(write_run, tmp_path):
    last_line('{"stage": "rl", "step": 13, "a": null, "b": Infinity, "c": NaN, "d": 1, "e": true}\n')(
        write_run(tmp_path)
    )
    row = load_runs(tmp_path).metrics.iloc[-1]
    assert np.isnan(row["a"]) and np.isinf(row["b"]) and np.isnan(row["c"]) and (row["d"], row["e"]) == (1, 1)
