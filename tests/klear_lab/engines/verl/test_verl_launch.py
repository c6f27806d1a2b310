"""What a dry run writes, and what is taken over of what verl leaves; without verl, which isn't asked."""

import json
import subprocess

import pandas as pd
import pytest
import yaml

from klear_lab.config import ConfigError
from klear_lab.engines.verl import files, launch, recipe
from klear_lab.engines.verl.metrics import forget_steps, our_metrics, read_answers, read_steps, read_validation
from klear_lab.engines.verl.phases import trainings
from klear_lab.engines.verl.rows import verl_row
from klear_lab.metrics import metric_of
from klear_lab.rl.phases import phases_of
from klear_lab.rl.rollout import choose_prompts
from klear_lab.storage.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_verl(monkeypatch):
    for module in (files, launch, recipe):
        monkeypatch.setattr(module, "has_verl", lambda: False)


def test_a_dry_run_writes_everything_and_trains_nothing(dry_run):
    place = dry_run("engine.nodes=2")
    assert {"config.yaml", "train.parquet", "benchmarks.parquet", "train.sh", "node.sh"} <= {
        file.name for file in place.iterdir()
    }
    assert RunFolder(place.parent).record["status"] == "running" and not (place.parent / "metrics.jsonl").exists()


def test_one_machine_needs_no_script_for_a_cluster(dry_run):
    assert not (dry_run() / "node.sh").exists()


@pytest.mark.parametrize("script", ["train.sh", "node.sh"])
def test_scripts_are_sound_and_have_no_blank_to_fill(dry_run, script):
    text = (dry_run("engine.nodes=2") / script).read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "@" not in text.replace('"$@"', "").replace("[@]", "")


def test_the_training_rows_are_those_of_each_step_of_our_own_loop(dry_run, config):
    settings = config("rl.steps=3")
    place = dry_run("rl.steps=3")
    table = pd.read_parquet(place / "train.parquet")
    prepared = next(place.parent.parent.glob("cache/data-*/rl.jsonl")).read_text().splitlines()
    rows, phase = [json.loads(line) for line in prepared], phases_of(settings.rl)[0]
    expected = [row["id"] for step in (1, 2, 3) for row in choose_prompts(phase, rows, settings.seed, step)]
    assert [about["id"] for about in table["extra_info"]] == expected
    assert len(expected) == 3 * settings.rl.prompts_per_step > len(rows)


def test_benchmarks_are_told_apart_by_name_and_keep_their_verifier(dry_run):
    table = pd.read_parquet(dry_run() / "benchmarks.parquet")
    assert set(table["data_source"]) == {"chain6", "chain8"}
    assert {about["data_source"] for about in table["extra_info"]} == {"chain_exact"}
    assert {about["benchmark"] for about in table["extra_info"]} == {"chain6", "chain8"}


GOOD = {
    "id": "a",
    "data_source": "chain",
    "prompt": [{"role": "user", "content": "1+2="}],
    "ability": "math",
    "reward_model": {"ground_truth": "3", "style": "rule"},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "1+2="}, "row a: prompt: is plain text; must be a list of messages"),
        ({"data_source": None}, "row a: data_source: is NoneType None; must be text"),
        ({"reward_model": {}}, "row a: reward_model.ground_truth: is NoneType None; must be text"),
        ({"prompt": [*GOOD["prompt"], {"role": "assistant", "content": "3"}]}, "row a: prompt: ends in a turn"),
    ],
)
def test_rows_that_verl_would_load_and_fail_on_later_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        verl_row(GOOD | change, 0)


def test_what_other_inputs_left_is_removed(dry_run):
    place = dry_run()
    (place / "checkpoints").mkdir()
    assert (dry_run() / "checkpoints").exists()
    (place / "inputs.json").write_text("{}")
    assert not (dry_run() / "checkpoints").exists()


def test_the_config_names_the_folder_and_a_model_that_verl_can_read(dry_run):
    place = dry_run()
    content = yaml.safe_load((place / "config.yaml").read_text())
    assert content["actor_rollout_ref"]["model"]["path"] == str(place / "start")
    assert content["trainer"]["default_local_dir"] == str(place / "checkpoints")


def test_a_run_that_is_not_dry_says_what_is_missing(config, monkeypatch):
    settings = config("engine=verl")
    assert "verl isn't installed here" in next(launch.missing_verl(settings))
    monkeypatch.setattr(launch, "has_verl", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert [*launch.missing_verl(settings)] == [
        "engine=verl: needs NVIDIA GPUs and sees none; dry_run=true writes what it would be started with"
    ]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert not [*launch.missing_verl(settings)]


LINE = {
    "actor/grad_norm": 0.5,
    "actor/clip/low_fraction": 0.25,
    "actor/lr": 1.0,
    "critic/score/mean": -0.5,
    "timing_s/old_log_prob": 1.0,
    "timing_s/update_actor": 2.0,
    "val-core/chain6/acc/mean@2": 0.75,
    "val-aux/chain6/raw/mean@2": 0.5,
}


def test_metrics_get_our_names():
    found = our_metrics(LINE)
    assert found == {
        "optim/grad_norm": 0.5,
        "clip/low_fraction": 0.25,
        "reward/mean": -0.5,
        "time/train_s": 3.0,
        "eval/chain6/avg@2": 0.75,
    }
    assert all(metric_of(name) for name in found)


def write_steps(file, *steps):
    lines = [json.dumps({"step": step, "data": {"actor/grad_norm": value}}) for step, value in steps]
    file.write_text("\n".join(lines) + "\n")


def test_a_later_attempt_counts_where_it_repeats_steps(tmp_path):
    write_steps(tmp_path / "2026-01-01.jsonl", (1, 1.0), (2, 2.0))
    write_steps(tmp_path / "2026-01-02.jsonl", (2, 20.0), (3, 30.0))
    assert [step["optim/grad_norm"] for step in read_steps(tmp_path).values()] == [1.0, 20.0, 30.0]


# Does for three steps, each of 0.2 s, what verl does; from the second start on it goes on from step 2.
STAND_IN = """
mkdir -p {place}/metrics {place}/validation {place}/checkpoints
first=1; [ -e {place}/checkpoints/latest_checkpointed_iteration.txt ] && first=3
for step in $(seq $first 3); do
  echo '{{"step": '$step', "data": {{"actor/grad_norm": '$first'}}}}' >> {place}/metrics/$first.jsonl
  echo $step > {place}/checkpoints/latest_checkpointed_iteration.txt
  sleep 0.2
  if [ $step = {fail} ]; then exit 3; fi
done
cp -r {start} {place}/checkpoints/global_step_3
mkdir {place}/checkpoints/global_step_3/actor
cp -r {start} {place}/checkpoints/global_step_3/actor/huggingface
"""


@pytest.fixture
def real_run(run, monkeypatch):
    """A function that runs engine=verl with a stand-in for verl, which fails after a step."""
    monkeypatch.setattr(launch, "missing_verl", lambda config: iter(()))
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_LOOKS", 0.05)
    write = launch.write_files

    def start(fail, *overrides):
        def write_stand_in(config, data, folder):
            place = write(config, data, folder)
            for training in trainings(config):
                own = place / training.name
                script = STAND_IN.format(place=own, start=place / "start", fail=fail)
                (own / "train.sh").write_text(script)
            return place

        monkeypatch.setattr(launch, "write_files", write_stand_in)
        return run(*SMALL_RUN, *overrides)

    return start


SMALL_RUN = """engine=verl engine.gpus_per_node=1 data.sft_rows=60 data.rl_rows=8 data.benchmark_rows=2 rl.steps=3
model.hidden_size=16 model.layers=2 sft.length_curriculum=0 sft.steps=1 rl.mini_batch_prompts=2""".split()


def test_a_run_takes_over_metrics_and_weights_and_finishes(real_run):
    folder = real_run(fail=0)
    assert folder.record["status"] == "finished"
    steps = [line for line in folder.metrics() if line["stage"] == "rl"]
    assert [(line["step"], line["optim/grad_norm"]) for line in steps] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert (folder.path / "model" / "model.safetensors").exists()


def test_a_run_whose_verl_failed_goes_on_from_its_last_checkpoint(real_run, tmp_path):
    with pytest.raises(RuntimeError, match="verl ended with code 3; its output is in .*output.log"):
        real_run(fail=2)
    folder = real_run(fail=0)
    steps = [line for line in folder.metrics() if line["stage"] == "rl"]
    assert [(line["step"], line["optim/grad_norm"]) for line in steps] == [(1, 1.0), (2, 1.0), (3, 3.0)]


TWO_PHASES = ["data_source=chain_and_functions", "rl.phases=[{ability: math}, {ability: code}]", "data.rl_rows=8"]


def test_phases_are_trained_one_after_the_other_and_their_steps_count_on(real_run):
    folder = real_run(0, *TWO_PHASES)
    steps = [line["step"] for line in folder.metrics() if line["stage"] == "rl"]
    assert folder.record["status"] == "finished" and steps == [1, 2, 3, 4, 5, 6]


def test_steps_after_the_last_checkpoint_are_forgotten(tmp_path):
    write_steps(tmp_path / "a.jsonl", (1, 1.0), (2, 2.0), (3, 3.0))
    forget_steps(tmp_path, 2)
    assert [*read_steps(tmp_path)] == [1, 2]


def test_a_validation_becomes_rows_of_evaluations(tmp_path):
    answer = {
        "step": 2,
        "score": 1.0,
        "acc": 1.0,
        "raw": 1.0,
        "reason": "correct",
        "length": 5,
        "truncated": False,
        "input": "1+2=",
        "output": "3",
    }
    lines = [json.dumps(answer | {"benchmark": "chain6", "prompt_id": name}) for name in ("a", "a", "b")]
    (tmp_path / "2.jsonl").write_text("\n".join(lines) + "\n")
    frame = read_validation(tmp_path / "2.jsonl")
    assert frame[["prompt_id", "sample"]].values.tolist() == [["a", 0], ["a", 1], ["b", 0]]
    assert frame["correct"].all() and frame["step"].eq(2).all()
    kept = read_answers(tmp_path / "2.jsonl", 1)
    assert [(line["prompt_id"], line["response"]) for line in kept] == [("a", "3"), ("b", "3")]
    assert len(read_answers(tmp_path / "2.jsonl", 2)) == 3
