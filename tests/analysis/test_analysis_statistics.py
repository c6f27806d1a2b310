"""Statistics and tables: hand-computed means, t-intervals and paired differences; what few seeds allow."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.draw.table import Table, latex_text, to_latex, to_markdown
from analysis.runs.tables import arm_differences, final_scores, final_scores_table, reading
from analysis.statistics import (
    Interval,
    last_common_step,
    mean_interval,
    metric_curves,
    over_seeds,
    paired_difference,
    scores,
)

SHARES = st.lists(st.integers(0, 1000).map(lambda right: right / 1000), min_size=2, max_size=8)
RUNS = pd.DataFrame(
    {
        "run_id": ["a0", "a1", "b0", "b1", "b2"],
        "arm": ["CISPO", "CISPO", "GPPO", "GPPO", "GPPO"],
        "method": ["cispo", "cispo", "gppo", "gppo", "gppo"],
        "seed": [0, 1, 0, 1, 2],
    }
)


def score_rows(values: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Scores of runs on one benchmark at steps 0 and 8, as `statistics.scores` gives them."""
    rows = [
        (run, "chain6", step, value)
        for run, pair in values.items()
        for step, value in zip((0, 8), pair, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["run_id", "benchmark", "step", "score"])
    return frame.assign(prompts=10, samples=4)


SCORES = score_rows({"a0": (0.4, 0.7), "a1": (0.4, 0.9), "b0": (0.4, 0.8), "b1": (0.4, 0.9), "b2": (0.4, 0.1)})


def test_interval_of_three_seeds_is_the_one_from_the_t_table() -> None:
    # mean 2, s = 1, t(0.975, 2) = 4.302653, half-width = 4.302653 / sqrt(3)
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(2.484138, abs=1e-6)
    assert interval.seeds == 3


def test_one_seed_has_a_mean_but_no_interval() -> None:
    interval = mean_interval([0.7])
    assert interval.mean == 0.7 and math.isnan(interval.half_width) and interval.seeds == 1


def test_no_seed_has_neither() -> None:
    interval = mean_interval([])
    assert math.isnan(interval.mean) and math.isnan(interval.half_width) and interval.seeds == 0


def test_equal_scores_give_a_width_of_exactly_zero() -> None:
    assert mean_interval([0.1] * 7).half_width == 0.0
    rounded = mean_interval([0.05, 0.05001, 0.04999])  # differences of kept scores, which have five digits
    assert rounded.half_width == 0.0 and not rounded.excludes_zero


def test_a_score_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval([0.1, np.nan])


@given(SHARES, st.floats(-1, 1), st.floats(0.1, 10))
def test_an_interval_moves_and_scales_with_its_values(values: list[float], shift: float, factor: float) -> None:
    plain, moved = mean_interval(values), mean_interval([factor * value + shift for value in values])
    assert moved.mean == pytest.approx(factor * plain.mean + shift, abs=1e-9)
    assert moved.half_width == pytest.approx(factor * plain.half_width, abs=1e-6)


def test_paired_difference_is_taken_seed_by_seed() -> None:
    # differences 0.1, 0.1, 0.4: mean 0.2, s = sqrt(0.03), t(0.975, 2) = 4.302653; seed 9 has no partner
    a = pd.Series([0.6, 0.5, 0.9, 0.0], index=[0, 1, 2, 9])
    b = pd.Series([0.5, 0.5, 0.4], index=[2, 0, 1])
    interval = paired_difference(a, b)
    assert interval.mean == pytest.approx(0.2)
    assert interval.half_width == pytest.approx(4.302653 * math.sqrt(0.03 / 3), abs=1e-6)
    assert interval.seeds == 3


@given(SHARES, st.floats(-0.5, 0.5))
def test_what_a_seed_does_to_both_arms_cancels(values: list[float], gap: float) -> None:
    seeds = pd.Series(values)
    interval = paired_difference(seeds + gap, seeds)
    assert interval.mean == pytest.approx(gap, abs=1e-9) and interval.half_width == pytest.approx(0, abs=1e-9)


@given(SHARES)
def test_swapping_the_arms_flips_the_sign_and_keeps_the_width(values: list[float]) -> None:
    a, b = pd.Series(values), pd.Series(values[::-1])
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.mean == pytest.approx(-other.mean) and one.half_width == pytest.approx(other.half_width)


def evaluation_frame(outcomes: dict[str, list[bool]]) -> pd.DataFrame:
    rows = [
        ("r", "chain6", 0, prompt, index, right)
        for prompt, all_ in outcomes.items()
        for index, right in enumerate(all_)
    ]
    return pd.DataFrame(rows, columns=["run_id", "benchmark", "step", "prompt_id", "sample", "correct"])


def test_avg_at_n_is_the_mean_over_prompts_of_the_share_correct() -> None:
    row = scores(evaluation_frame({"p": [True, False], "q": [True, True]})).iloc[0]
    assert row["score"] == 0.75 and row["prompts"] == 2 and row["samples"] == 2


def test_prompts_with_unequal_samples_have_no_avg_at_n() -> None:
    with pytest.raises(ValueError, match="unequal"):
        scores(evaluation_frame({"p": [True, False], "q": [True]}))


def test_scores_are_compared_at_the_last_step_that_every_run_has() -> None:
    longer = pd.concat([SCORES, SCORES[SCORES["run_id"] == "a0"].assign(step=[12, 16])])
    assert last_common_step(longer) == 8
    with pytest.raises(ValueError, match=r"share no evaluated step: chain6 at step 8 is missing in a0; so"):
        last_common_step(longer[(longer["run_id"] != "a0") | (longer["step"] > 8)])


def test_runs_that_lack_a_benchmark_of_others_are_named_with_it() -> None:
    other = SCORES[SCORES["run_id"] != "a0"].assign(benchmark="chain8")
    with pytest.raises(ValueError, match="the same benchmarks: chain8 is missing in a0; so"):
        last_common_step(pd.concat([SCORES, other]))
    many = pd.concat([SCORES, *(other.assign(run_id=f"c{n}", benchmark="code") for n in range(6))])
    with pytest.raises(
        ValueError, match="chain6 is missing in c0, c1, c2, c3 and 2 others; code is missing in a0,"
    ):
        last_common_step(many)


def test_a_curve_stops_where_one_of_its_seeds_stops() -> None:
    values = pd.DataFrame(
        [("a0", "p", 1, 0.2), ("a0", "p", 2, 0.3), ("a1", "p", 1, 0.4), ("b0", "p", 2, 0.5)],
        columns=["run_id", "panel", "step", "value"],
    )
    curves = over_seeds(values, RUNS)
    assert curves[["arm", "step", "seeds"]].to_numpy().tolist() == [["CISPO", 1, 2], ["GPPO", 2, 1]]
    assert curves["mean"].tolist() == pytest.approx([0.3, 0.5])
    assert curves["lowest"].tolist() == [0.2, 0.5] and curves["highest"].tolist() == [0.4, 0.5]


def test_a_null_or_infinite_metric_is_left_out_of_its_step_and_counted() -> None:
    rows = [
        ("a0", 1, 0.5),
        ("a1", 1, np.nan),
        ("a0", 2, np.inf),
        ("a1", 2, 0.25),
        ("a0", 3, np.nan),
        ("a1", 3, np.nan),
    ]
    metrics = pd.DataFrame(rows, columns=["run_id", "step", "policy/entropy"]).assign(stage="rl")
    curves = metric_curves(metrics, RUNS, ["policy/entropy"])
    assert curves[["step", "mean", "seeds"]].to_numpy().tolist() == [[1, 0.5, 1], [2, 0.25, 1]]


def test_final_scores_have_one_row_an_arm_with_the_gain_within_seeds() -> None:
    table = final_scores(SCORES, RUNS, last=8).set_index("arm")
    assert table.loc["CISPO", "final_mean"] == pytest.approx(0.8)
    assert table.loc["CISPO", "gain_mean"] == pytest.approx(0.4)
    # two values 0.2 apart: s = 0.1414, t(0.975, 1) = 12.7062, half-width = 12.7062 * 0.1
    assert table.loc["CISPO", "gain_half_width"] == pytest.approx(1.27062, abs=1e-5)
    assert table.loc["GPPO", "seeds"] == 3 and table.loc["GPPO", "sft_half_width"] == 0.0


def test_differences_pair_only_the_seeds_that_both_arms_have() -> None:
    row = arm_differences(SCORES, RUNS, last=8).iloc[0]
    assert (row["arm"], row["minus"], row["seeds"]) == ("GPPO", "CISPO", 2)
    # seeds 0 and 1 differ by 0.1 and 0.0; seed 2 of GPPO (0.1) must not pull the mean down
    assert row["difference"] == pytest.approx(0.05)
    assert (row["low"], row["high"]) == pytest.approx((0.05 - 0.63531, 0.05 + 0.63531), abs=1e-5)


def test_words_of_a_difference_claim_no_more_than_its_seeds_allow() -> None:
    assert reading(Interval(math.nan, math.nan, 0)) == "no seed in common"
    assert reading(Interval(0.3, math.nan, 1)) == "1 seed: no interval, no verdict"
    assert reading(Interval(0.3, 0.2, 3)) == "interval excludes 0"
    assert reading(Interval(-0.1, 0.2, 3)) == "interval includes 0"
    assert reading(Interval(0.0, 0.0, 3)) == "no difference in any seed"
    assert reading(Interval(0.1, 0.0, 3)) == "the same in every seed: no spread to judge by"


def test_every_format_of_a_table_holds_every_cell() -> None:
    table = final_scores_table(final_scores(SCORES, RUNS, last=8))
    markdown, latex = to_markdown(table), to_latex(table)
    for cell in [cell for row in table.rows for cell in row]:
        assert cell in markdown and latex_text(cell) in latex
    assert r"\multicolumn{3}{c}{chain6 (avg@4)}" in latex and r"\cmidrule(lr){3-5}" in latex
    assert all(line.count("|") == 6 for line in markdown.splitlines() if line.startswith("|"))


def test_latex_escapes_what_it_would_read_as_a_command() -> None:
    latex = to_latex(Table("t", "100 % of a_b & c", [("", "x")], [["{#}"]]))
    assert r"100 \% of a\_b \& c" in latex and r"\{\#\}" in latex
