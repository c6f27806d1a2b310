"""Reading run folders and choosing what is compared: broken, unfinished, failed, repeated and mixed runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.report.captions import figure2_caption, left_out, rerun_commands, run_table, seeds_words
from analysis.report.report import summarise
from analysis.runs.comparable import comparable_sets, differing_keys
from analysis.runs.frames import load_runs, world_words
from analysis.runs.tables import arm_differences_table, final_scores_table

Writer = Callable[..., Path]


def damage(folder: Path) -> str:
    """What is wrong with the one damaged run of a folder; no other run is lost with it."""
    ((_, words),) = load_runs(folder).damaged.items()
    return words


def test_folders_without_run_json_are_no_runs(tmp_path: Path, write_run: Writer) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "sweeps").mkdir()
    write_run(tmp_path)
    assert load_runs(tmp_path).runs["run_id"].tolist() == ["gppo-0"]


def test_a_missing_folder_holds_no_runs(tmp_path: Path) -> None:
    frames = load_runs(tmp_path / "nowhere")
    assert frames.runs.empty and frames.metrics.empty and frames.scores.empty


def test_a_half_written_last_line_of_an_unfinished_run_is_tolerated(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path, status="running", steps=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rl", "step": 4, "optim/gr')
    metrics = load_runs(tmp_path).metrics
    assert metrics.loc[metrics["stage"] == "rl", "step"].max() == 3


def test_a_half_written_last_line_of_a_finished_run_is_an_error(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path, steps=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rl"')
    assert re.search(r"metrics\.jsonl, line 6: .*Delete the run folder", damage(tmp_path))


def test_a_broken_line_in_the_middle_is_an_error_even_in_an_unfinished_run(
    tmp_path: Path, write_run: Writer
) -> None:
    run = write_run(tmp_path, status="running", steps=3)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]))
    assert "metrics.jsonl, line 2" in damage(tmp_path)


def test_a_resumed_run_that_repeats_a_step_keeps_the_later_line(tmp_path: Path, write_run: Writer) -> None:
    run = write_run(tmp_path, steps=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"stage": "rl", "step": 2, "optim/grad_norm": 9.0}) + "\n")
    metrics = load_runs(tmp_path).metrics
    again = metrics[(metrics["step"] == 2) & (metrics["stage"] == "rl")]
    assert again["optim/grad_norm"].tolist() == [9.0] and again["policy/entropy"].isna().all()


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "evaluations.parquet"])
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, name: str, write_run: Writer) -> None:
    run = write_run(tmp_path)
    (run / name).write_text("{half: [")
    assert re.search(rf"{name}.*Delete the run folder", damage(tmp_path))


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "evaluations.parquet"])
def test_a_missing_file_is_an_error_only_in_a_finished_run(tmp_path: Path, name: str, write_run: Writer) -> None:
    (write_run(tmp_path / "failed", status="failed") / name).unlink()
    assert load_runs(tmp_path / "failed").runs["arm"].tolist() == ["GPPO"]
    (write_run(tmp_path / "finished") / name).unlink()
    assert name in damage(tmp_path / "finished")


def test_a_metric_that_is_no_number_is_named_and_an_infinite_one_is_read(
    tmp_path: Path, write_run: Writer
) -> None:
    path = write_run(tmp_path) / "metrics.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[-1])
    lines[-1] = json.dumps(row | {"ratio/max": float("inf")})
    path.write_text("\n".join(lines) + "\n")
    assert load_runs(tmp_path).metrics["ratio/max"].iloc[-1] == float("inf")
    lines[-1] = json.dumps(row | {"ratio/max": "large"})
    path.write_text("\n".join(lines) + "\n")
    assert f"metrics.jsonl: ratio/max of rl step {row['step']} is no number" in damage(tmp_path)


def test_a_response_that_stands_twice_is_an_error(tmp_path: Path, write_run: Writer) -> None:
    path = write_run(tmp_path) / "evaluations.parquet"
    frame = pd.read_parquet(path)
    pd.concat([frame, frame.head(1)]).to_parquet(path)
    assert "stands twice" in damage(tmp_path)


def test_a_copied_run_folder_is_named_and_the_one_of_that_name_is_kept(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path).rename(tmp_path / "copy")
    run = write_run(tmp_path)
    assert "Remove the copy" in damage(tmp_path)
    frames = load_runs(tmp_path)
    assert [*frames.runs["folder"]] == [run] and set(frames.scores["run_id"]) == {run.name}
    run.rename(tmp_path / "another")
    frames = load_runs(tmp_path)
    assert frames.runs.empty and frames.scores.empty and sorted(frames.damaged) == ["another", "copy"]


def test_failed_and_unfinished_runs_are_listed_but_never_compared(
    tmp_path: Path, write_sweep: Writer, write_run: Writer
) -> None:
    write_sweep(tmp_path, seeds=(0,))
    write_run(tmp_path, "gppo", 5, status="running", steps=2, evaluated=(0,))
    frames = load_runs(tmp_path)
    (drawn,) = comparable_sets(frames)
    assert sorted(drawn.runs["run_id"]) == ["cispo-0", "clip_higher-0", "gppo-0"]
    statuses = {row[3]: row[0] for row in run_table(frames).rows}
    assert statuses["none-0"] == "failed: FloatingPointError: loss is NaN at step 7"
    assert statuses["gppo-5"] == "unfinished"


def test_runs_with_other_settings_are_not_mixed_and_the_reason_is_told(
    tmp_path: Path, write_sweep: Writer, write_run: Writer
) -> None:
    write_sweep(tmp_path, seeds=(0, 1))
    write_run(tmp_path, "gppo", 2, settings={"rl": {"steps": 12, "learning_rate": 0.0001}}, run_id="other")
    frames = load_runs(tmp_path)
    sets = comparable_sets(frames)
    assert "other" not in sets[0].runs["run_id"].tolist()
    assert left_out(sets) == ["GPPO, 1 seed (other): rl.learning_rate = 0.0001 (drawn: 0.0002)"]


def test_where_and_how_a_run_is_kept_does_not_part_it_from_others(tmp_path: Path, write_run: Writer) -> None:
    write_run(
        tmp_path,
        "gppo",
        settings={"logger": {"name": "wandb"}, "sweep_name": "figure2", "runs_dir": "x"},
        run_id="a",
    )
    write_run(tmp_path, "cispo", settings={"logger": {"name": "console"}, "progress": False}, run_id="b")
    (only,) = comparable_sets(load_runs(tmp_path))
    assert sorted(only.runs["run_id"]) == ["a", "b"]


def test_the_set_with_most_methods_comes_first_then_most_runs_then_the_latest(
    tmp_path: Path, write_run: Writer
) -> None:
    def settings(lr: float) -> dict[str, object]:
        return {"rl": {"steps": 12, "learning_rate": lr}}

    for seed in range(3):
        write_run(tmp_path, "gppo", seed, settings=settings(1.0), run_id=f"many-seeds-{seed}")
    for method in ("gppo", "cispo"):
        write_run(tmp_path, method, settings=settings(2.0), run_id=f"two-methods-{method}")
        write_run(
            tmp_path, method, settings=settings(3.0), run_id=f"later-{method}", started="2026-02-01T00:00:00"
        )
    firsts = [one.runs["run_id"].iloc[0].rsplit("-", 1)[0] for one in comparable_sets(load_runs(tmp_path))]
    assert firsts == ["later", "two-methods", "many-seeds"]


def with_sft_seed(sft_seed: int) -> dict[str, object]:
    return {"sft": {"steps": 5, "seed": sft_seed}}


def test_seeds_with_an_sft_of_their_own_are_one_comparison(tmp_path: Path, write_run: Writer) -> None:
    for seed in range(3):
        for method in ("gppo", "cispo"):
            write_run(tmp_path, method, seed, settings=with_sft_seed(seed))
    (only,) = comparable_sets(load_runs(tmp_path))
    assert (len(only.runs), only.own_sft) == (6, True)


def test_seeds_from_one_sft_are_not_mixed_with_seeds_that_have_their_own(
    tmp_path: Path, write_run: Writer
) -> None:
    for seed in range(4):
        write_run(tmp_path, "gppo", seed, settings=with_sft_seed(0), run_id=f"one-{seed}")
    for seed in range(1, 3):
        write_run(tmp_path, "gppo", seed, settings=with_sft_seed(seed), run_id=f"own-{seed}")
    sets = comparable_sets(load_runs(tmp_path))
    assert [sorted(one.runs["run_id"]) for one in sets[:2]] == [
        ["one-0", "one-1", "one-2", "one-3"],
        ["one-0", "own-1", "own-2"],
    ]
    assert [one.own_sft for one in sets[:2]] == [False, True]
    assert left_out(sets)[0] == "GPPO, 2 seeds (own-1, own-2): SFT checkpoints shared otherwise"


def test_one_method_with_two_settings_is_two_arms(tmp_path: Path, write_run: Writer) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "gppo", seed)
        write_run(tmp_path, "gppo", seed, clip={"dual_clip": 3})
    frames = load_runs(tmp_path)
    (only,) = comparable_sets(frames)
    assert only.runs.groupby("arm")["seed"].nunique().to_dict() == {"GPPO": 2, "GPPO (dual_clip=3)": 2}


def test_a_seed_that_ran_twice_counts_once(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path, "gppo", 0, run_id="first", score=lambda step: 0.2)
    write_run(tmp_path, "gppo", 0, run_id="second", score=lambda step: 0.6, started="2026-03-01T00:00:00")
    frames = load_runs(tmp_path)
    sets = comparable_sets(frames)
    assert sets[0].repeats == ("first",)
    assert left_out(sets) == ["first: the same arm, seed and settings as a later run, which was taken"]
    final = summarise(frames, sets[0]).final.iloc[0]
    assert final["seeds"] == 1 and final["final_mean"] == pytest.approx(0.6)


def test_constant_scores_give_intervals_of_no_width_and_no_warning(tmp_path: Path, write_run: Writer) -> None:
    for method in ("cispo", "gppo"):
        for seed in (0, 1, 2):
            write_run(tmp_path, method, seed, score=lambda step: 0.5)
    frames = load_runs(tmp_path)
    results = summarise(frames, comparable_sets(frames)[0])
    assert (results.final["final_half_width"] == 0).all() and (results.gaps["difference"] == 0).all()


@pytest.mark.parametrize("names", [["latest"], ["a", "z"], ["1", "gppo-0-best", "latest"]])
def test_links_to_a_run_are_that_run(names: list[str], tmp_path: Path, write_run: Writer) -> None:
    runs, elsewhere = tmp_path / "runs", write_run(tmp_path / "elsewhere", "cispo", 0)
    own = write_run(runs, "gppo", 0)
    for name in names:
        (runs / name).symlink_to(own, target_is_directory=True)
        (runs / f"far-{name}").symlink_to(elsewhere, target_is_directory=True)
    frames = load_runs(runs)
    assert not frames.damaged and [*frames.records] == ["cispo-0", "gppo-0"]
    assert frames.runs.set_index("run_id")["folder"]["gppo-0"] == own


def test_runs_of_unequal_length_are_compared_at_their_last_common_step(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path, "cispo", evaluated=(0, 4, 8))
    write_run(tmp_path, "gppo", evaluated=(0, 4, 8, 12))
    frames = load_runs(tmp_path)
    results = summarise(frames, comparable_sets(frames)[0])
    assert set(results.final["step"]) == {8} and set(results.gaps["step"]) == {8}


def test_one_seed_is_told_as_no_interval_and_no_verdict(tmp_path: Path, write_run: Writer) -> None:
    for method in ("cispo", "gppo"):
        write_run(tmp_path, method)
    frames = load_runs(tmp_path)
    sets = comparable_sets(frames)
    results = summarise(frames, sets[0])
    assert "1 seed: no band." in figure2_caption(results.final, sets[0].runs, sets[0].own_sft)
    assert not any("±" in cell for row in final_scores_table(results.final).rows for cell in row)
    assert {row[-1] for row in arm_differences_table(results.gaps).rows} == {"1 seed: no interval, no verdict"}


def test_runs_of_one_sweep_have_one_command(tmp_path: Path, write_run: Writer) -> None:
    for method in ("cispo", "gppo"):
        write_run(tmp_path, method, command=["python", "-m", "klear_lab.run", "clip_method=gppo,cispo", "-m"])
    frames = load_runs(tmp_path)
    commands = rerun_commands(frames, comparable_sets(frames)[0], ["--runs", "runs", "--out", "my report"])
    assert commands == [
        "python -m klear_lab.run clip_method=gppo,cispo -m",
        "python -m analysis --runs runs --out 'my report'",
    ]


def test_the_page_calls_a_world_embedded_only_where_the_model_is_the_tiny_one() -> None:
    data = {"data_source": {"name": "klear"}, "scale": "small"}
    assert world_words({**data, "model": {"name": "tiny", "path": None}})[0] == "embedded world, tiny model"
    assert (
        world_words({**data, "model": {"name": "path", "path": "Qwen/Qwen3-0.6B"}})[0] == "klear, Qwen/Qwen3-0.6B"
    )


def test_seed_counts_are_told_as_they_are() -> None:
    runs = pd.DataFrame({"arm": ["a", "a", "b"], "seed": [0, 1, 0]})
    assert seeds_words(runs) == "1 to 2 seeds"
    assert seeds_words(runs.tail(1)) == "1 seed"


TREES = st.recursive(
    st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
)
CONFIGS = st.dictionaries(st.sampled_from(["rl", "sft", "seed"]), TREES, max_size=3)


@given(CONFIGS, CONFIGS)
def test_differing_keys_are_none_for_equal_configs_and_the_same_seen_from_both_sides(
    one: dict, other: dict
) -> None:
    assert differing_keys(one, one) == {}
    there, back = differing_keys(one, other), differing_keys(other, one)
    assert {key: (b, a) for key, (a, b) in there.items()} == back
    assert not any(key.split(".")[0] == "seed" for key in there)
