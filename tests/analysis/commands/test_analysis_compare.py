"""Comparing any runs: how they are named and grouped, what is said of their settings, what is left out."""

import pytest

from analysis.__main__ import main
from analysis.commands.compare import compare_runs
from analysis.errors import RunFolderError
from analysis.runs.choose import choose_runs
from analysis.runs.frames import load_runs


@pytest.fixture
def runs(write_run, tmp_path):
    folder = tmp_path / "runs"
    for seed in (0, 1):
        write_run(folder, "gppo", seed)
        write_run(folder, "gppo", seed, settings={"rl": {"steps": 12, "learning_rate": 0.0001}})
    write_run(folder, "cispo", 0)
    write_run(folder, "none", 0, status="failed", error="boom")
    return folder


def test_runs_are_named_by_id_its_beginning_or_their_sweep(runs):
    frames = load_runs(runs)
    assert len(choose_runs(frames, ["figure2"])) == 6
    assert choose_runs(frames, ["gppo-0", "cispo"]) == ["gppo-0", "cispo-0"]
    with pytest.raises(RunFolderError, match="typo: neither a run nor a sweep; sweeps are figure2, runs cispo-0"):
        choose_runs(frames, ["typo"])


def test_arms_differ_in_settings_and_seeds_do_not_make_an_arm(runs):
    frames = load_runs(runs)
    found = compare_runs(frames, choose_runs(frames, ["figure2"]))
    assert found.runs.groupby("arm")["seed"].count().to_dict() == {
        "cispo, learning_rate=0.0002": 1,
        "gppo, learning_rate=0.0001": 2,
        "gppo, learning_rate=0.0002": 2,
    }
    assert {*found.differing} == {"clip_method.name", "rl.learning_rate"}
    assert found.differing["rl.learning_rate"]["gppo, learning_rate=0.0001"] == "0.0001"
    assert found.left_out == ["none-0: failed"]


def test_keys_that_end_alike_are_told_apart(write_run, tmp_path):
    for rate in (1e-3, 5e-3):
        write_run(
            tmp_path, "gppo", 0, settings={"sft": {"learning_rate": rate}, "rl": {"learning_rate": rate / 10}}
        )
    frames = load_runs(tmp_path)
    assert {*compare_runs(frames, [*frames.records]).runs["arm"]} == {
        "rl.learning_rate=0.0001, sft.learning_rate=0.001",
        "rl.learning_rate=0.0005, sft.learning_rate=0.005",
    }


def test_a_fixed_sft_seed_that_happens_to_be_one_runs_seed_makes_no_arm(write_run, tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path, "gppo", seed, settings={"sft": {"seed": 0}}, run_id=f"run-{seed}")
    frames = load_runs(tmp_path)
    assert compare_runs(frames, [*frames.records]).runs["arm"].unique().tolist() == ["gppo"]


def test_a_seed_that_all_stages_share_is_no_setting_but_a_fixed_one_is(write_run, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "gppo", seed, settings={"sft": {"seed": seed}}, run_id=f"own-{seed}")
        write_run(tmp_path, "gppo", seed, settings={"sft": {"seed": 7}}, run_id=f"fixed-{seed}")
    frames = load_runs(tmp_path)
    assert compare_runs(frames, ["own-0", "own-1"]).differing == {}
    found = compare_runs(frames, ["own-0", "own-1", "fixed-0", "fixed-1"])
    assert found.differing == {"sft.seed": {"seed=seed": "seed", "seed=7": "7"}}
    assert found.runs.groupby("arm")["seed"].count().to_dict() == {"seed=seed": 2, "seed=7": 2}


def test_the_command_prints_tables_and_draws_curves(runs, tmp_path, capsys):
    out = tmp_path / "out"
    names = [path.name for path in runs.glob("gppo*")]
    assert main(["compare", *names, "--runs", str(runs), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (
        "| rl.learning_rate | 0.0002 | 0.0001 |" in printed or "| rl.learning_rate | 0.0001 | 0.0002 |" in printed
    )
    assert "learning_rate=0.0002 \N{MINUS SIGN} learning_rate=0.0001" in printed
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        *("curves.pdf", "curves.png", "curves.svg", "differences.md", "differences.tex"),
        *("final_scores.md", "final_scores.tex", "settings.md", "settings.tex"),
    ]
    assert main(["compare", "none", "--runs", str(runs)]) == 1
    assert "none of the runs is finished: none-0: failed" in capsys.readouterr().err
