"""Curves of a kept sweep: the numbers behind them, which arms are drawn, and what can't be drawn."""

import pytest

from analysis.commands.curves import main
from analysis.errors import RunFolderError
from analysis.report.sections import figure_names
from analysis.sweeps.curves import arms_of, kept_curves, only_arms
from analysis.sweeps.kept import KeptSweep, write_results


def run(arm, seed, score, entropy):
    return {
        "run_id": f"{arm}-{seed}",
        "arm": arm,
        "seed": seed,
        "scores": {"chain6": {"0": 0.0, "2": score}},
        "curves": {"policy/entropy": entropy},
    }


@pytest.fixture
def kept():
    runs = [
        run({"clip_method": "gppo", "clip_method.dual_clip": None}, 0, 0.5, [1.0, None]),
        run({"clip_method": "gppo", "clip_method.dual_clip": None}, 1, 0.7, [3.0, 5.0]),
        run({"clip_method": "gppo", "clip_method.dual_clip": 3}, 0, 0.1, [2.0, 2.0]),
    ]
    return KeptSweep({"sweep": "toy", "unfinished": {}}, runs)


def test_lines_are_means_over_seeds_with_their_range(kept):
    curves = kept_curves(kept, ["chain6", "policy/entropy"]).set_index(["panel", "arm", "step"])
    last = curves.loc["chain6", "dual_clip=null", 2]
    assert (last["mean"], last["lowest"], last["highest"], last["seeds"]) == (0.6, 0.5, 0.7, 2)
    assert curves.loc["policy/entropy", "dual_clip=null", 1]["mean"] == 2.0
    assert curves.loc["policy/entropy", "dual_clip=null", 2]["seeds"] == 1  # the other seed has no value there
    assert curves.loc["policy/entropy", "dual_clip=3", 2]["mean"] == 2.0


def test_arms_are_chosen_as_they_are_typed(kept):
    assert len(only_arms(kept, ["clip_method.dual_clip=null"]).runs) == 2
    assert len(only_arms(kept, ["clip_method.dual_clip=null,3", "clip_method=gppo"]).runs) == 3
    assert len(only_arms(kept, ["clip_method.dual_clip=3.0"]).runs) == 1  # a number, however it is written
    with pytest.raises(RunFolderError, match="no run of sweep toy has clip_method=cispo"):
        only_arms(kept, ["clip_method=cispo"])


def test_an_arm_that_is_alone_keeps_its_name_and_tables_and_figures_share_names(kept):
    alone = only_arms(kept, ["clip_method.dual_clip=3"])
    assert arms_of(alone) == ["gppo, dual_clip=3"]
    assert figure_names(kept) == {
        "gppo, dual_clip=3": "dual_clip=3",
        "gppo, dual_clip=null": "dual_clip=null",
    }


def test_a_panel_that_is_not_kept_is_named_with_those_that_are(kept):
    with pytest.raises(RunFolderError, match="chain9: not kept of sweep toy; one of chain6, policy/entropy"):
        kept_curves(kept, ["chain9"])


def test_the_command_draws_a_file_or_says_what_is_kept(kept, tmp_path, capsys):
    write_results(kept, tmp_path)
    for name in ("figure.png", "figure.svg"):
        assert main(["toy", "chain6", "--results", str(tmp_path), "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 5000
    with pytest.raises(SystemExit):
        main(["toy", "chain6", "--results", str(tmp_path), "--out", "x.jpg"])
    assert "--out x.jpg: ends in none of .png, .svg, .pdf" in capsys.readouterr().err
    assert main(["none", "chain6", "--results", str(tmp_path), "--out", "x.png"]) == 1
    assert "no such file; kept are toy" in capsys.readouterr().err
