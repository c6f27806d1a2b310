"""Convergence of SFT: a rule on the loss alone says which seeds learned, and both means stand beside each other."""

import json

import pytest

from analysis.draw.table import DASH
from analysis.runs.frames import load_runs
from analysis.statistics import share_interval
from analysis.sweeps.convergence import converged, convergence_table, final_sft_loss, has_sft_of_its_own
from analysis.sweeps.from_runs import keep_sweep
from analysis.sweeps.kept import KeptSweep


def run(seed, losses, score, arm="hard"):
    scores = {"chain6": {"0": score}}
    return {"arm": {"x": arm}, "seed": seed, "scores": scores, "curves": {}, "sft_loss": losses, "samples": 4}


def test_the_loss_is_the_mean_of_the_last_tenth_and_of_the_last_step_of_few():
    assert final_sft_loss(run(0, [9.0] * 18 + [0.1, 0.3], 0.5)) == pytest.approx(0.2)
    assert final_sft_loss(run(0, [9.0, 0.3], 0.5)) == pytest.approx(0.3)
    assert final_sft_loss(run(0, [], 0.5)) is None


def test_a_seed_converged_where_it_comes_near_the_lowest_of_its_arm_whatever_it_scores():
    runs = [run(0, [0.02], 0.1), run(1, [0.059], 0.1), run(2, [0.061], 0.9), run(3, [], 0.9)]
    assert [one["seed"] for one in converged(runs)] == [0, 1]


def test_rows_that_nobody_can_learn_are_no_failure_because_every_seed_has_them():
    clean, dirty = (
        [run(s, [0.02 + 0.01 * s], 0.5) for s in (0, 1)],
        [run(s, [0.2 + 0.01 * s], 0.5) for s in (0, 1)],
    )
    assert len(converged(clean)) == len(converged(dirty)) == 2
    assert converged([]) == []


def test_wilsons_interval_by_hand_and_at_the_ends():
    # 8 of 10 with z = 1.96: centre (0.8 + z^2 / 20) / (1 + z^2 / 10) = 0.7167, half-width 0.2266
    assert share_interval(8, 10) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert share_interval(10, 10)[1] < 1 == share_interval(10, 10)[2]


def test_the_table_shows_both_means_and_says_which_is_which():
    runs = [run(0, [0.02], 0.8), run(1, [0.03], 0.6), run(2, [0.5], 0.1), run(0, [], 0.4, arm="easy")]
    table = convergence_table(KeptSweep({"sweep": "toy"}, runs))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["hard"][0] == "2 of 3" and rows["hard"][2] == "0.020 to 0.500"
    assert rows["hard"][3].startswith("0.500 ±") and rows["hard"][4].startswith("0.700 ±")
    assert set(rows["easy"]) == {DASH}
    assert [name for _, name in table.columns][-2:] == ["score, all seeds", "score, converged seeds"]


def test_results_without_losses_or_of_one_shared_sft_have_no_table():
    two = [run(0, [0.02], 0.8), run(1, [0.03], 0.8)]
    without = [{key: value for key, value in one.items() if key != "sft_loss"} for one in two]
    assert has_sft_of_its_own(KeptSweep({"sweep": "toy"}, two))
    assert not has_sft_of_its_own(KeptSweep({"sweep": "toy"}, without))
    assert not has_sft_of_its_own(KeptSweep({"sweep": "toy"}, [run(0, [0.02], 0.8), run(1, [0.02], 0.7)]))


def test_losses_are_kept_of_a_runs_sft_and_not_of_its_rl(write_run, tmp_path):
    folder = write_run(tmp_path / "runs", "gppo", 0)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines += [{"stage": "sft", "step": 20, "loss/sft": 0.12345}, {"stage": "sft", "step": 10, "loss/sft": 0.5}]
    lines[-3]["loss/sft"] = 7.0  # the SFT term of an RL step
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (kept,) = keep_sweep(load_runs(tmp_path / "runs"), "figure2").runs
    assert kept["sft_loss"] == [2.0, 0.5, 0.1235] or kept["sft_loss"] == [2.0, 0.5, 0.1234]
