"""Kept results: what a sweep's runs say is what its file and its tables say, and nothing unfinished is in them."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.commands.keep import main
from analysis.errors import RunFolderError
from analysis.runs.frames import load_runs
from analysis.sweeps.from_runs import keep_sweep
from analysis.sweeps.kept import KeptSweep, in_order, read_results, seeds_words, value_order, write_results
from analysis.sweeps.logged import curves_by_run
from analysis.sweeps.tables import score_table, swept_differences_table


@pytest.fixture
def kept(write_sweep, tmp_path):
    return keep_sweep(load_runs(write_sweep(tmp_path / "runs")), "figure2")


def test_a_file_holds_what_the_runs_say(kept, tmp_path):
    path = write_results(kept, tmp_path / "kept")
    again = read_results(path)
    assert again == kept
    assert len(again.runs) == 9
    run = next(r for r in again.runs if r["arm"] == {"clip_method": "gppo"} and r["seed"] == 1)
    frame = pd.read_parquet(tmp_path / "runs" / "gppo-1" / "evaluations.parquet")
    chain6 = frame[(frame["benchmark"] == "chain6") & (frame["step"] == 12)]
    assert run["scores"]["chain6"]["12"] == pytest.approx(chain6["correct"].mean(), abs=1e-5)
    assert sum(run["right"]["chain6"]) == chain6["correct"].sum()
    lines = (tmp_path / "runs" / "gppo-1" / "metrics.jsonl").read_text().splitlines()
    norms = [json.loads(line).get("optim/grad_norm") for line in lines]
    assert run["curves"]["optim/grad_norm"] == pytest.approx([n for n in norms if n is not None], rel=1e-3)


def test_the_same_runs_give_the_same_bytes(kept, tmp_path):
    first, second = (write_results(kept, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_what_is_not_finished_is_named_and_left_out(kept):
    assert kept.about["unfinished"] == {"none-0": "failed"}
    assert all(run["run_id"] != "none-0" for run in kept.runs)


def test_a_sweep_without_runs_is_an_error_with_the_command_that_makes_them(write_sweep, tmp_path):
    frames = load_runs(write_sweep(tmp_path / "runs"))
    with pytest.raises(RunFolderError, match="no finished run of sweep table2; make them: .* sweep=table2 "):
        keep_sweep(frames, "table2")


def test_tables_are_in_the_order_of_the_sweeps_file_and_by_hand_right(write_run, tmp_path):
    scores = {("gppo", 0): 0.8, ("gppo", 1): 0.6, ("cispo", 0): 0.5, ("cispo", 1): 0.3, ("clip_higher", 0): 0.4}
    for (method, seed), score in scores.items():
        write_run(tmp_path / "runs", method, seed, score=lambda step, s=score: s)
    kept = keep_sweep(load_runs(tmp_path / "runs"), "figure2")
    assert [row[:2] for row in score_table(kept).rows] == [["clip_higher", "1"], ["cispo", "2"], ["gppo", "2"]]
    # Two seeds 0.1 off their mean: t(1) = 12.706 times 0.1414 / sqrt(2).
    assert score_table(kept).rows[2][2] == "0.700 ± 1.271"
    rows = {row[0]: row[2] for row in swept_differences_table(kept).rows}
    assert rows["clip_method: gppo less cispo"] == "+0.300 ± 0.000"  # no spread to judge by
    assert rows["clip_method: cispo less clip_higher"] == "+0.100"  # one seed in common


def test_a_step_without_a_value_keeps_its_place_in_a_curve():
    name = "clip/low_fraction"
    metrics = pd.DataFrame({"step": [0, 1, 3, 4], name: [np.nan, 0.5, 0.25, np.nan], "other": 1.0})
    assert curves_by_run(metrics.assign(run_id="a", stage="rl")) == {"a": {name: [0.5, None, 0.25, None]}}


def test_the_most_clipped_tokens_are_summed_over_steps(write_sweep, tmp_path):
    runs = write_sweep(tmp_path / "runs")
    token = {"id": 1, "of": 9}
    lines = [
        {"low": [{**token, "text": "7", "count": 2}, {**token, "text": "=", "count": 3}], "high": []},
        {"low": [{**token, "text": "7", "count": 2}], "high": [{**token, "text": "a", "count": 1}]},
    ]
    text = "".join(json.dumps({"step": i, "most_clipped": line}) + "\n" for i, line in enumerate(lines))
    (runs / "gppo-1" / "probes.jsonl").write_text(text + '{"step": 3, "most_cl')
    kept = keep_sweep(load_runs(runs), "figure2")
    found = {run["run_id"]: run["most_clipped"] for run in kept.runs}
    assert [*found["gppo-1"]["low"].items()] == [("7", 4), ("=", 3)]
    assert found["gppo-1"]["high"] == {"a": 1}
    assert found["gppo-0"] == {"low": {}, "high": {}}
    (runs / "gppo-1" / "probes.jsonl").write_text("no JSON\n")
    with pytest.raises(RunFolderError, match="probes.jsonl: not JSON lines"):
        keep_sweep(load_runs(runs), "figure2")


def test_orders_come_from_the_sweeps_files():
    assert value_order("table2")["correctness"] == ["only_true", "mixed"]
    assert in_order("figure4", "data.filter_rl", [False, True]) == [True, False]
    assert in_order("table4", "data.top_sources", [10, 2, 1]) == [1, 2, 10]
    assert in_order("no such sweep", "seed", [2, 1]) == [1, 2]


def test_the_command_writes_files_and_tables(write_sweep, tmp_path, capsys):
    runs, out = write_sweep(tmp_path / "runs"), tmp_path / "kept"
    assert main(["figure2", "--runs", str(runs), "--out", str(out)]) == 0
    assert "| gppo | 3 |" in (out / "README.md").read_text()
    assert main(["table1", "--runs", str(runs), "--out", str(out)]) == 1
    assert "no finished run of sweep table1" in capsys.readouterr().err


def test_arms_with_unequal_numbers_of_seeds_say_so(kept):
    fewer = [run for run in kept.runs if run["arm"]["clip_method"] != "gppo" or run["seed"] == 0]
    one = [run for run in kept.runs if run["seed"] == 0]
    said = [seeds_words(KeptSweep(kept.about, runs)) for runs in (kept.runs, fewer, one)]
    assert said == ["3 seeds", "1 to 3 seeds", "1 seed"]
