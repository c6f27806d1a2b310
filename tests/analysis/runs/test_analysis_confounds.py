"""Confounds: what differs beside arm and seed is found, and what belongs to an arm is not taken for one."""

import itertools

import pytest

from analysis.claims.judge import claims_json, judge_claims, sweeps_at_hand
from analysis.runs.confounds import FOLLOWING_SEEDS, OWN_SEED, find_confounds, runs_that_follow, settings
from analysis.runs.frames import load_runs
from analysis.sweeps.from_runs import keep_sweep
from analysis.sweeps.kept import KeptSweep, caveats


def config(method, seed, lr=1e-4, **more):
    return {
        "seed": seed,
        "clip_method": {"name": method, "eps_low": 0.2 if method == "gppo" else 0.3},
        "rl": {"learning_rate": lr, "steps": 8},
        "sft": {"seed": 0, "steps": 5},
        **more,
    }


def grid(methods=("gppo", "cispo"), seeds=range(3)):
    configs = {f"{m}-{s}": config(m, s) for m, s in itertools.product(methods, seeds)}
    return configs, {run_id: {"clip_method": run_id.split("-")[0]} for run_id in configs}


def test_arms_seeds_and_places_are_no_confounds():
    configs, arms = grid()
    configs["gppo-1"] |= {"runs_dir": "elsewhere", "sweep_name": "other", "logger": {"name": "none"}}
    found = find_confounds(configs, arms)
    assert (found.runs, found.arms) == ({}, {})


def test_a_run_that_differs_from_its_arm_is_named_with_the_keys():
    configs, arms = grid()
    configs["gppo-1"]["rl"]["learning_rate"] = 2e-4
    assert find_confounds(configs, arms).runs == {"gppo-1": {"rl.learning_rate": ("0.0002", "0.0001")}}


def test_of_two_runs_of_an_arm_the_one_unlike_the_other_arms_is_the_strange_one():
    configs, arms = grid(seeds=range(2))
    configs["cispo-0"]["rl"]["steps"] = 4
    assert [*find_confounds(configs, arms).runs] == ["cispo-0"]


def test_whole_arms_that_differ_in_a_key_that_is_not_swept_are_named():
    configs, arms = grid()
    for run_id, one in configs.items():
        one["rl"]["steps"] = 8 if run_id.startswith("gppo") else 12
    found = find_confounds(configs, arms)
    assert found.runs == {} and found.arms == {"rl.steps": ["12", "8"]}


@pytest.mark.parametrize("follows", [True, False])
def test_a_stages_seed_that_follows_the_run_is_no_setting_and_a_fixed_one_is(follows):
    configs, arms = grid()
    for one in configs.values():
        one["sft"]["seed"] = one["seed"] if follows else 0
    assert find_confounds(configs, arms).runs == {}
    configs["gppo-2"]["sft"]["seed"] = 7
    assert find_confounds(configs, arms).runs == {"gppo-2": {"sft.seed": ("7", "seed" if follows else "0")}}


def test_what_a_groups_files_set_elsewhere_belongs_to_its_arm():
    configs = {f"{r}-{s}": config("gppo", s) for r in ("sft", "sft_rl") for s in range(2)}
    arms = {run_id: {"recipe": run_id.split("-")[0]} for run_id in configs}
    for run_id, one in configs.items():
        one["rl"]["steps"] = 0 if run_id.startswith("sft-") else 8
    assert find_confounds(configs, arms).arms == {}


def test_what_a_rung_of_a_ladder_sets_belongs_to_its_arm_and_nothing_else_does():
    configs = {f"{r}-{s}": config("grpo", s) for r in ("dapo_1", "dapo_2") for s in range(2)}
    arms = {run_id: {"ladder": run_id.split("-")[0]} for run_id in configs}
    for run_id, one in configs.items():
        if run_id.startswith("dapo_2"):
            one["clip_method"] |= {"name": "clip_higher", "eps_high": 0.28}
            one["rl"] |= {"overlong_buffer": 9, "token_mean": "mini_batch", "train_prompts": 32, "max_rollouts": 8}
    assert find_confounds(configs, arms).arms == {}
    for run_id, one in configs.items():
        one["rl"]["learning_rate"] = 2e-4 if run_id.startswith("dapo_2") else 1e-4
    assert find_confounds(configs, arms).arms == {"rl.learning_rate": ["0.0001", "0.0002"]}


def test_a_confounded_run_is_left_out_of_numbers_and_verdicts_and_said(write_run, tmp_path):
    noise = [0.0, 0.02, -0.01, 0.01, -0.02]
    for factor, (method, level) in enumerate((("gppo", 0.9), ("cispo", 0.6), ("clip_higher", 0.6)), start=1):
        for seed in range(5):
            shift = noise[factor * seed % 5]
            write_run(tmp_path, method, seed, score=lambda step, s=level + shift: s, prompts=200)
    write_run(
        tmp_path,
        "gppo",
        5,
        score=lambda step: 0.1,
        settings={"rl": {"steps": 12, "learning_rate": 1.0}},
        run_id="strange",
    )
    write_run(tmp_path, "cispo", 5, score=lambda step: 0.6)
    kept = keep_sweep(load_runs(tmp_path), "figure2")
    assert "strange" not in {run["run_id"] for run in kept.runs} and len(kept.runs) == 16
    assert caveats(kept) == [
        "Confounded and left out: strange, rl.learning_rate = 1.0 (others of its arm: 0.0002)."
    ]
    judged = judge_claims(sweeps_at_hand(load_runs(tmp_path), kept=tmp_path / "nothing kept"))
    (c8,) = [entry for entry in claims_json(judged) if entry["id"] == "C8"]
    assert (c8["verdict"], c8["seeds"]) == ("supported", 5)
    assert c8["estimate"] == pytest.approx(0.225, abs=0.01)


def test_runs_that_were_given_fewer_steps_do_not_count_as_their_arm(write_run, tmp_path):
    for method, level in (("gppo", 0.8), ("cispo", 0.6)):
        for seed in range(3):
            write_run(tmp_path, method, seed, score=lambda step, s=level + 0.01 * seed: s)
    write_run(tmp_path, "gppo", 3, steps=4, evaluated=(0, 4), score=lambda step: 0.2)
    write_run(tmp_path, "cispo", 3, score=lambda step: 0.63)
    kept = keep_sweep(load_runs(tmp_path), "figure2")
    assert sum(run["arm"]["clip_method"] == "gppo" for run in kept.runs) == 3
    assert "rl.steps = 4 (others of its arm: 12)" in caveats(kept)[0]


def test_a_seed_whose_arms_start_from_unlike_sfts_of_one_key_is_said():
    def run(method, seed, loss, key="k"):
        return {
            "arm": {"clip_method": method},
            "seed": seed,
            "sft_loss": [2.0, loss],
            "sft_key": key,
            "scores": {},
        }

    other_machine = [run("gppo", 1, 0.0252), run("cispo", 1, 0.0252)]
    other_settings = [run("gppo", 2, 0.0238), run("cispo", 2, 0.0252, key="other")]
    kept = KeptSweep({}, [run("gppo", 0, 0.0238), run("cispo", 0, 0.0238), *other_machine, *other_settings])
    assert caveats(kept) == []
    (line,) = caveats(KeptSweep({}, [*kept.runs, run("cispo", 3, 0.0252), run("gppo", 3, 0.0238)]))
    assert line.startswith("Confounded: seed 3's arms") and "0.0238, 0.0252" in line


def following(pairs):
    """pairs: (stage's seed, run's own) of runs 0, 1, 2, ...; returns the numbers of those that follow."""
    values, seeds = ({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))
    return {int(run_id) for run_id in runs_that_follow(values, seeds)}


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([(0, 0), (1, 1), (2, 2)], {0, 1, 2}),
        ([(0, 0), (0, 1), (0, 2)], set()),  # fixed, and by chance one run's own
        ([(7, 0), (7, 1), (7, 2)], set()),
        ([(0, 0), (0, 0), (0, 0), (0, 1)], set()),  # three arms of one seed make no majority of seeds
        ([(0, 0), (1, 1), (7, 0), (7, 1)], {0, 1}),  # two arms, one fixed
        ([(0, 0), (1, 1), *((7, seed) for seed in range(5))], {0, 1}),  # the fixed one with more seeds
        ([(0, 0), (1, 1), (1, 2), (3, 3), (4, 4)], {0, 1, 3, 4}),  # one run has another's seed
        ([(None, 0), (None, 1)], set()),
    ],
)
def test_a_stages_seed_follows_unless_it_is_fixed(pairs, wanted):
    assert following(pairs) == wanted


def test_every_stages_seed_that_follows_is_the_same_setting():
    configs, _ = grid(methods=("gppo",))
    for one in configs.values():
        one["sft"]["seed"] = one["seed"]
        one["data"] = {"seed": one["seed"]}
    found = settings(configs)
    assert {one[key] for one in found.values() for key in FOLLOWING_SEEDS} == {OWN_SEED}
    assert found["gppo-0"] == found["gppo-1"] == found["gppo-2"]
