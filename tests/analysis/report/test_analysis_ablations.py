"""The report's sections: what a sweep asks, how its arms compare, and when there is nothing to draw."""

import pytest

from analysis.claims.judge import KEPT, RUNS
from analysis.report.sections import question_of, section_of
from analysis.sweeps.figures import figures_of
from analysis.sweeps.kept import KeptSweep
from analysis.sweeps.tables import arm_table


def kept(scores, steps=("0", "4", "8")):
    """`scores`: arm -> final score of each seed."""
    about = {
        "sweep": "toy",
        "git_commit": "abc",
        "hardware": {"device": "cpu", "device_name": "x"},
        "unfinished": {},
    }
    runs = [
        {
            "run_id": f"{arm}-{seed}",
            "arm": {"clip_method": arm},
            "seed": seed,
            "seconds": 60,
            "samples": 4,
            "scores": {"chain6": dict.fromkeys(steps, 0.1) | {steps[-1]: score}},
            "curves": {"policy/entropy": [0.5] * 8},
        }
        for arm, found in scores.items()
        for seed, score in enumerate(found)
    ]
    return KeptSweep(about, runs)


def test_iqm_and_probability_of_improvement_are_the_hand_computed_ones():
    table = arm_table(kept({"a": [0.1, 0.4, 0.5, 0.9], "b": [0.2, 0.5, 0.6, 1.0]}))
    assert [row[1].partition(" [")[0] for row in table.rows] == ["0.450", "0.550"]  # the middle half of four
    assert table.rows[0][2] == "\N{EN DASH}"
    # b against a: 0.2 beats 1 of 4, 0.5 beats 2 and ties 1, 0.6 beats 3, 1.0 beats 4: 10.5 of 16.
    assert table.rows[1][2].startswith("0.66 [0.") and table.rows[1][2].endswith("]")


def test_one_seed_has_its_mean_and_no_interval_and_a_run_without_a_benchmark_is_left_out():
    one = kept({"a": [0.1], "b": [0.5]})
    assert arm_table(one).rows == [["a", "0.100", "\N{EN DASH}"], ["b", "0.500", "1.00"]]
    assert "an interval needs two seeds" in arm_table(one).caption
    more = kept({"a": [0.1, 0.3], "b": [0.5, 0.7]})
    for run in more.runs[:3]:
        run["scores"]["chain8"] = {"8": 0.2}
    assert [row[1] for row in arm_table(more).rows][1] == "0.350"  # of arm b the first seed alone has both
    for run in more.runs:
        run["scores"] = {run["arm"]["clip_method"]: {"8": 0.5}}
    assert arm_table(more).rows[1] == ["b", "0.500 [0.500, 0.500]", "\N{EN DASH}"]  # no benchmark in common


def test_a_sweeps_question_is_that_of_its_file_without_its_command():
    question = question_of("figure2")
    assert question.startswith("Question: does GPPO end above") and "python -m" not in question
    assert question_of("no such sweep") == ""


def test_without_rl_there_is_no_figure_and_with_too_many_arms_of_one_key_neither():
    assert figures_of(kept({"a": [0.5]}, steps=("0",))) == {}
    assert figures_of(kept({f"arm{i}": [0.5] for i in range(15)})) == {}
    assert [*figures_of(kept({"a": [0.5], "b": [0.6]}))] == ["toy_curves", "toy_mechanism"]


@pytest.mark.slow
def test_only_runs_at_hand_write_files(tmp_path):
    own = kept({"a": [0.5, 0.6], "b": [0.6, 0.8]})
    from_kept = section_of(own, KEPT, tmp_path)
    assert list(tmp_path.iterdir()) == []
    from_runs = section_of(own, RUNS, tmp_path)
    assert from_runs.figures == from_kept.figures and len(from_runs.figures) == 2
    assert from_runs.made == "4 runs, 4 minutes of run time (cpu x), commit abc"
    assert {p.name for p in tmp_path.iterdir()} >= {
        "toy_scores.csv",
        "toy_arms.md",
        "toy_cost.tex",
        "toy_curves.png",
    }
    assert [table.rows for table in from_runs.tables] == [table.rows for table in from_kept.tables]


@pytest.mark.parametrize("sweep", ["table2", "collapse", "stability"])
def test_every_kind_of_sweep_has_a_question(sweep):
    assert "Judged on" in question_of(sweep)
