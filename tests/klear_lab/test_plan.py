"""Plans: counts and bytes are the real model's, what is advised is enough, and the command says so."""

import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.identity import run_id
from klear_lab.plan.__main__ import main
from klear_lab.plan.advice import advise, applied
from klear_lab.plan.arm_plan import plan_arm
from klear_lab.plan.cards import CARDS, GB, NAMES, card_of, gpus_of
from klear_lab.plan.costs import costs_of
from klear_lab.plan.live_memory import LiveMemory
from klear_lab.plan.measure import Method, by_layers, run_sampling, run_training, training_pass
from klear_lab.plan.memory import Assumed, held, largest_shape, memory_of
from klear_lab.plan.model_size import layers_alike, read_model_config, size_of, without_content
from klear_lab.plan.pace import composed_of, lengths_of, pace_of, paced
from klear_lab.plan.refusals import refusals
from klear_lab.policy.forward_checks import silence_dropout
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.micro_batches import length
from klear_lab.policy.model import Policy, load_policy
from klear_lab.policy.packed import reads_packed, tree_of
from klear_lab.preflight import check_machine
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Request, Sampling
from klear_lab.sft import Example
from klear_lab.validation import parse
from support.architectures import SOUND, save_folder, tiny_model
from support.models import save_qwen3_config

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ALIKE = ("qwen3", "llama", "gemma", "gpt2", "qwen3_moe")
SIZES = {
    "0.6B": (1024, 3072),
    "1.7B": (2048, 6144),
}
ROOM = replace(CARDS["h100-80gb"], memory=76 * GB / 0.9)  # of which 76 GB are usable


@pytest.fixture
def qwen3(tmp_path):
    """A function from a size to a folder with a config.json of that Qwen3, and nothing else."""

    def write(size="0.6B"):
        return save_qwen3_config(tmp_path / size, *SIZES[size], max_position_embeddings=40960)

    return write


@pytest.fixture
def planned(config, qwen3):
    """A function from a scale and overrides to the config of a run of a Qwen3, and the model's config."""

    def build(scale, *overrides, size="0.6B"):
        made = config(f"scale={scale}", "model=path", f"model.path={qwen3(size)}", *overrides)
        return made, read_model_config(made.model)

    return build


def by_name(stages):
    return {stage.stage: stage for stage in stages}


@pytest.mark.parametrize("kind", ALIKE)
def test_parameters_are_those_of_the_real_model(kind):
    model = tiny_model(kind, **SOUND[kind])
    size = size_of(model.config)
    assert size.parameters == size.trained == sum(p.numel() for p in model.parameters())


def test_a_token_uses_two_of_four_experts_and_looks_its_embedding_up():
    model = tiny_model("qwen3_moe", **SOUND["qwen3_moe"])
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    looked_up = model.get_input_embeddings().weight.numel()
    assert size_of(model.config).used == sum(p.numel() for p in model.parameters()) - looked_up - experts // 2


def test_adapters_are_all_that_is_trained():
    model = tiny_model("llama", **SOUND["llama"])
    plain, adapted = size_of(model.config), size_of(model.config, lora=4)
    linear = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    assert adapted.trained == sum(4 * (m.in_features + m.out_features) for m in linear)
    assert adapted.parameters == plain.parameters + adapted.trained


def real_policy(model, bfloat16):
    return Policy(model, FakeCodec(), torch.device("cpu"), torch.bfloat16 if bfloat16 else None)


class FakeCodec:
    """All that a training pass asks a codec for."""

    stop_token_ids, pad_token_id = (1,), 0


def micro_batch(sequences, positions, vocabulary):
    """Sequences of one prompt token each, so that nearly all tokens are of responses, and no prefix is shared."""
    return [
        Example([number], [place % vocabulary for place in range(positions - 1)]) for number in range(sequences)
    ]


def saved_bytes(policy, sequences):
    """Bytes that a real forward pass keeps for its backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage, storage.nbytes()  # the storage, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        response_log_probs(policy, sequences)
    places = []
    if reads_packed(policy, length(sequences[0])):  # where attention finds tokens is no tensor of autograd
        rectangles = tree_of(policy.model, sequences).rectangles
        places = [index for part in rectangles for index in vars(part).values() if isinstance(index, torch.Tensor)]
    return sum(size for _, size in saved.values()) + sum(index.nbytes for index in places)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    "shape", [(4, 64), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 100), (8, 120)))]
)
@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "qwen3_moe", "gemma3_text"])
def test_activations_are_within_5_percent_of_what_a_real_pass_keeps(kind, shape, bfloat16):
    model = tiny_model(kind, **SOUND[kind])
    silence_dropout(model)
    model.train()
    kept = saved_bytes(real_policy(model, bfloat16), micro_batch(*shape, model.config.vocab_size))
    found = training_pass(model.config, Method(bfloat16, packs=True), *shape)
    logits = shape[0] * shape[1] * model.config.vocab_size * 4  # a single chunk, which the head keeps
    assert found.activations + found.copies + logits == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shape", [(1, 100), (4, 64), (8, 120)])
def test_the_peak_is_within_5_percent_of_a_real_update(shape, checkpointing):
    config = ModelConfig(name="tiny", hidden_size=64, layers=6, gradient_checkpointing=checkpointing)
    policy = load_policy(config, torch.device("cpu"), seed=0)
    sequences = micro_batch(*shape, policy.model.config.vocab_size)
    response_log_probs(policy, sequences)[0].sum().backward()  # gradients are there, and the head is known
    there = [tensor for p in policy.model.parameters() for tensor in (p, p.grad)]
    with LiveMemory([*there, *policy.model.buffers()]) as memory:
        response_log_probs(policy, sequences)[0].sum().backward()
    found = training_pass(read_model_config(config), Method(False, checkpointing, packs=True), *shape)
    assert found.activations + found.copies + found.rest == pytest.approx(memory.peak, rel=0.05)


@pytest.mark.parametrize(
    "method",
    [
        Method(True),
        *(pytest.param(m, marks=pytest.mark.slow) for m in (Method(True, True), Method(False, False, 4))),
    ],
)
def test_few_layers_give_the_figures_of_all(method):
    config = read_model_config(ModelConfig(name="tiny", layers=9))
    whole = run_training(config, method, 2, 64)
    assert by_layers(config, lambda part: run_training(part, method, 2, 64)) == whole


def test_a_plan_leaves_nothing_behind_that_a_run_would_meet(policy):
    before = torch.get_rng_state()
    config = read_model_config(ModelConfig(name="tiny"))
    run_training(config, Method(True, True), 2, 64)
    run_sampling(config, Method(True), 2, 16, 4, 32)
    assert torch.equal(before, torch.get_rng_state())
    requests, sampling = [Request([5, 6], [1, 2])], Sampling(2, 3, 1.0, 1.0, 2)
    assert TransformersSampler(policy).sample(requests, sampling)[0][0].token_ids
    assert response_log_probs(policy, micro_batch(2, 8, 100))[0].isfinite().all()


def test_a_model_that_reads_its_tensors_has_no_plan_and_says_so(monkeypatch):
    config = read_model_config(ModelConfig(name="tiny"))
    monkeypatch.setattr("klear_lab.plan.measure.eager_choices", nullcontext)
    monkeypatch.setattr("klear_lab.plan.measure.give_lifetimes", lambda model: torch.ones(1).item())
    with pytest.raises(
        ConfigError, match="a model of type qwen3 can't be run without content .*so there is no plan"
    ):
        run_training(config, Method(True), 2, 64)


def test_layers_that_differ_are_all_measured():
    sizes = {**SOUND["gemma3_text"], "num_hidden_layers": 7}
    config = tiny_model("gemma3_text", **sizes).config
    assert not layers_alike(without_content(config))
    assert training_pass(config, Method(True), 2, 64) == run_training(config, Method(True), 2, 64)


def test_a_plan_of_a_0_6b_has_16_bytes_a_parameter_and_114688_of_cache_a_token(planned):
    config, model = planned("gpu")
    size = size_of(model)
    assert size.parameters == 596_049_920
    stages = by_name(memory_of(config, model, ROOM, Assumed()))
    update = stages["RL update"].parts
    fixed = update["weights"] + update["gradients"] + update["optimizer states"]
    assert fixed == 16 * size.parameters
    assert held(replace(config, optimizer="adamw_8bit"), size)["optimizer states"] < 2.1 * size.parameters
    rollout = stages["rollout"]
    assert rollout.parts["key-value cache"] == 114_688 * rollout.sequences * rollout.positions * 5 / 4
    assert update["activations"] / (2 * 4096) == pytest.approx(28 * 82_545, rel=0.001)


@pytest.mark.slow
def test_checkpointing_keeps_a_tenth(planned):
    config, model = planned("gpu")
    kept = by_name(memory_of(config, model, ROOM, Assumed()))["SFT update"].parts["activations"]
    again = applied(config, {"model.gradient_checkpointing": True})
    assert by_name(memory_of(again, model, ROOM, Assumed()))["SFT update"].parts["activations"] < kept / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "size"),
    [
        ("gpu", "0.6B"),
        ("gpu_1_7b_4k", "1.7B"),
        ("gpu_0_6b_32k", "0.6B"),
    ],
)
def test_scales_of_a_gpu_fit_76_gb(planned, scale, size):
    config, model = planned(scale, size=size)
    stages = memory_of(config, model, ROOM, Assumed())
    assert len(stages) == 4
    assert max(stage.total for stage in stages) < 76 * GB
    assert advise(config, model, ROOM, Assumed()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hidden", "intermediate", "tied"),
    [("Qwen/Qwen3-4B", 2560, 9728, True), ("Qwen/Qwen3-8B", 4096, 12288, False)],
)
def test_the_docs_commands_for_larger_models_fit_one_gpu(config, tmp_path, name, hidden, intermediate, tied):
    sizes = dict(num_hidden_layers=36, num_attention_heads=32, tie_word_embeddings=tied)
    folder = save_qwen3_config(tmp_path, hidden, intermediate, max_position_embeddings=40960, **sizes)
    section = DOCS.split("## What fits on one GPU")[1].split("\n## ")[0].replace("\\\n", " ")
    (line,) = re.findall(rf"python -m klear_lab\.run (.*model\.path={name} .*)", section)
    made = config(*line.replace(name, str(folder)).split())
    stages = memory_of(made, read_model_config(made.model), CARDS["h100-80gb"], Assumed())
    assert len(stages) == 4
    assert max(stage.total for stage in stages) < CARDS["h100-80gb"].usable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "card", "keys"),
    [
        (["rl.micro_batch_tokens=65536"], "h100-80gb", {"rl.micro_batch_tokens"}),
        (["engine=trl", "rl.micro_batch_tokens=null"], "h100-80gb", {"rl.micro_batch_sequences"}),
        (["rl.rollout_batch_sequences=512"], "h100-80gb", {"rl.rollout_batch_sequences"}),
        (
            ["sft.max_tokens=32768", "rl.rollout_batch_sequences=16", "eval.batch_sequences=16"],
            "h100-80gb",
            {"model.gradient_checkpointing"},
        ),
        (["rl.steps=0"], "rtx4090", None),
    ],
)
def test_what_is_advised_makes_it_fit(planned, overrides, card, keys):
    config, model = planned("gpu", *overrides)
    before = max(stage.total for stage in memory_of(config, model, CARDS[card], Assumed()))
    assert before > CARDS[card].usable
    change = advise(config, model, CARDS[card], Assumed())
    assert keys is None or set(change) == keys
    changed = applied(config, change)
    assert max(stage.total for stage in memory_of(changed, model, CARDS[card], Assumed())) <= CARDS[card].usable


@pytest.mark.slow
def test_nothing_is_advised_where_nothing_helps(planned):
    config, model = planned("gpu", "rl.steps=0", size="1.7B")
    assert advise(config, model, replace(CARDS["l40s"], memory=2 * GB), Assumed()) is None


BENCHMARKS = "+data_source.benchmarks={a: {files: [a.jsonl]}, aime24: {files: [b.jsonl]}}"
FILES = ["data_source=file", "data_source.sft.files=[s.jsonl]", "data_source.rl.files=[r.jsonl]"]


@pytest.mark.parametrize(
    ("overrides", "sequences"),
    [
        (["data.benchmark_rows=2", "eval.samples=1"], 2),
        (["data.benchmark_rows=2", "eval.samples=3"], 6),
        (["data.benchmark_rows=2", "eval.samples=3", "data_source=chain_and_functions"], 6),  # one after the other
        (["data.benchmark_rows=9", "eval.samples=1", "data_source=reasoning_gym", "sft.steps=0"], 9),
        (["data.benchmark_rows=40", "eval.samples=1", *FILES, BENCHMARKS], 40),
        (
            ["data.benchmark_rows=null", "eval.samples=1", *FILES, BENCHMARKS],
            100_000,
        ),  # nobody knows how many a has
        (["data.benchmark_rows=null", "eval.samples=2", "data_source=klear_code", "sft.steps=0"], 350),
    ],
)
def test_an_evaluation_holds_no_more_sequences_than_there_are(config, overrides, sequences):
    made = config("eval.batch_sequences=100000", *overrides)
    stages = by_name(memory_of(made, read_model_config(made.model), card_of("cpu"), Assumed(64)))
    assert stages["evaluation"].sequences == sequences


def test_a_plan_counts_packed_passes_where_a_run_makes_them_and_only_there(config, monkeypatch):
    model = read_model_config(config().model)

    def kept(made, card):
        return by_name(memory_of(made, model, card_of(card), Assumed(16)))["RL update"].parts["activations"]

    own, trl = config("model.precision=float32"), config("model.precision=float32", "engine=trl")
    assert kept(own, "cpu") != kept(own, "h100-80gb") == kept(trl, "cpu")
    monkeypatch.setattr("klear_lab.plan.memory.LARGEST", 1000)
    assert kept(own, "cpu") == kept(own, "h100-80gb")


def test_without_benchmarks_no_evaluation_is_planned(config):
    made = config(*FILES)
    model, card = read_model_config(made.model), card_of("cpu")
    plan = plan_arm(made, "new", "an arm", card, Assumed(64))
    assert [stage.stage for stage in plan.memory] == ["SFT update", "RL update", "rollout"]
    assert [cost.stage for cost in plan.costs] == ["SFT", "rollouts", "RL updates"]
    nothing = plan_arm(applied(made, {"sft.steps": 0, "rl.steps": 0}), "new", "an arm", card, Assumed(64))
    assert (nothing.memory, nothing.costs, nothing.largest.total, nothing.change) == ([], [], 0, {})
    assert advise(made, model, card, Assumed(64)) == {}


@pytest.mark.slow
def test_a_run_is_not_refused_for_sequences_that_it_never_draws(planned):
    few = ["eval.batch_sequences=4096", "data.benchmark_rows=2", "eval.samples=1", "sft.steps=0", "rl.steps=0"]
    config, _ = planned("gpu", *few)
    assert not [*refusals(config, CARDS["h100-80gb"])]
    many, _ = planned("gpu", *few, "eval.samples=2048")
    assert [line for line in refusals(many, CARDS["h100-80gb"]) if line.startswith("evaluation of 4096 x")]


def test_the_largest_micro_batch_has_the_most_tokens_that_its_limits_allow():
    assert largest_shape(100, 8, None) == (8, 100)
    assert largest_shape(100, 8, 250) == (3, 83)
    assert largest_shape(100, 8, 50) == (1, 100)
    assert largest_shape(100, 2, 10_000) == (2, 100)


def test_a_run_is_refused_what_its_card_cannot_hold_in_one_line_that_says_what_to_set(planned):
    config, _ = planned("gpu", "rl.rollout_batch_sequences=512", "sft.steps=0")
    (line,) = refusals(config, CARDS["h100-80gb"])
    assert line.startswith("rollout of 512 x 4,097 tokens: would take")
    assert "; set rl.rollout_batch_sequences=" in line and "plan=skip" in line
    assert not [*refusals(config, replace(CARDS["h200"], memory=1e12))]


@pytest.mark.slow
def test_a_run_checks_its_plan_before_it_starts_unless_told_not_to(planned, monkeypatch, tmp_path):
    places = [f"runs_dir={tmp_path}/runs", "reward_workers=1"]
    config, _ = planned("gpu", "rl.rollout_batch_sequences=512", "sft.steps=0", *places)
    monkeypatch.setattr("klear_lab.needs.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("klear_lab.needs.this_gpu", lambda device: CARDS["h100-80gb"])
    with pytest.raises(ConfigError, match="rollout of 512"):
        check_machine(config, "some_run")
    check_machine(applied(config, {"plan": "skip"}), "some_run")


def test_the_key_of_the_check_is_a_word_in_yaml_too_and_changes_no_run(composed_config, config):
    assert run_id(composed_config("plan=skip")) == run_id(composed_config())
    with pytest.raises(ConfigError, match="plan=off: must be one of check, skip"):
        config("plan=off")


def test_finished_runs_and_cached_sft_cost_nothing(config, composed_config, run):
    folder = run("rl.steps=1", "sft.steps=1").path
    places = [f"runs_dir={folder.parent}", "sft.steps=1"]
    finished, other = (config(*places, f"rl.steps={steps}") for steps in (1, 2))
    model, card = read_model_config(finished.model), card_of("cpu")
    done = costs_of(finished, folder.name, model, card, Assumed())
    assert {cost.done for cost in done} == {"finished"}
    begun = {cost.stage: cost.done for cost in costs_of(other, "another", model, card, Assumed())}
    assert begun == {"SFT": "in the cache", "rollouts": None, "RL updates": None, "evaluation": None}


def measured(path, card, assumed):
    return pace_of(path, parse(composed_of(path)), card, assumed)


def forecast(config, pace):
    model, card = read_model_config(config.model), card_of("cpu")
    arm = paced(plan_arm(config, "new", "an arm", card, Assumed(64)), pace)
    assert costs_of(config, "new", model, card, Assumed(64))[0].tokens == arm.costs[0].tokens
    return {cost.stage: cost.seconds for cost in arm.costs}


@pytest.mark.slow
def test_a_run_forecasts_others_by_what_its_own_stages_took(config, run):
    folder = run("rl.steps=2", "sft.steps=1", "eval.every=1")
    pace = measured(folder.path, card_of("cpu"), Assumed(64))
    taken = {name: stage["seconds"] for name, stage in folder.record["stages"].items()}
    same = forecast(config("rl.steps=2", "sft.steps=1", "eval.every=1"), pace)
    assert same["rollouts"] + same["RL updates"] == pytest.approx(taken["rl"], abs=0.01)
    assert same["evaluation"] == pytest.approx(taken["evaluation"], abs=0.01)
    assert same["SFT"] == pytest.approx(taken["sft"], rel=0.01)
    longer = forecast(config("rl.steps=8", "sft.steps=3", "eval.every=1"), pace)
    assert longer["rollouts"] == pytest.approx(4 * same["rollouts"])
    assert longer["SFT"] == pytest.approx(3 * same["SFT"])
    assert longer["evaluation"] == pytest.approx(3 * same["evaluation"])


@pytest.mark.slow
def test_responses_that_ended_stay_as_long_where_more_is_allowed_and_cut_ones_fill_it(config, run):
    folder = run("rl.steps=2", "sft.steps=1", "rl.max_response_tokens=20")
    lines = folder.metrics()
    for line in lines:
        if line["stage"] == "rl" and line["step"] > 0:
            line |= {"rollout/length_mean": 11.0, "rollout/truncated_fraction": 0.1}
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = lengths_of(folder.path, config("rl.max_response_tokens=20"))
    assert (found.ended, found.truncated) == (pytest.approx(10), 0.1)
    assert (found.mean(20), found.mean(40), found.mean(5)) == (pytest.approx(11), pytest.approx(13), 5)
    model, card = read_model_config(config().model), card_of("cpu")

    def sampled(*overrides, assumed):
        costs = costs_of(config("rl.steps=2", *overrides), "new", model, card, assumed)
        return next(cost.tokens for cost in costs if cost.stage == "rollouts")

    assumed = Assumed(64, responses=found)
    longer = [sampled(f"rl.max_response_tokens={n}", assumed=assumed) for n in (20, 40)]
    assert longer[1] / longer[0] == pytest.approx(13 / 11)
    assert lengths_of(run("rl.steps=0", "sft.steps=1").path, config()) is None


@pytest.mark.slow
def test_an_unfinished_run_and_a_cached_sft_give_the_pace_of_what_they_did(config, run):
    whole = run("rl.steps=4", "sft.steps=1")
    lines = (whole.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    steps = [line for line in lines if json.loads(line)["step"] <= 2 or json.loads(line)["stage"] == "sft"]
    (whole.path / "metrics.jsonl").write_text("".join(steps))
    pace = measured(whole.path, card_of("cpu"), Assumed(64))
    taken = sum(json.loads(line).get("time/train_s", 0) for line in steps if json.loads(line)["stage"] == "rl")
    assert forecast(config("rl.steps=2", "sft.steps=1"), pace)["RL updates"] == pytest.approx(taken)
    other = run("rl.steps=4", "sft.steps=1", "seed=1")
    assert "SFT" in pace.factors and "SFT" not in measured(other.path, card_of("cpu"), Assumed(64)).factors


@pytest.mark.parametrize(
    ("made", "words"), [(False, "isn't the folder of a run"), (True, "has taken no step yet")]
)
def test_a_folder_without_a_step_has_no_pace(run, tmp_path, made, words):
    path = tmp_path / "none"
    if made:
        shutil.copytree(run("rl.steps=1", "sft.steps=0").path, path)
        (path / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match=words):
        measured(path, card_of("cpu"), Assumed(64))


def test_tokens_and_flops_are_those_of_the_config(planned):
    config, model = planned("gpu", "sft.steps=3", "rl.steps=2", "eval.every=1")
    costs = {cost.stage: cost for cost in costs_of(config, "new", model, ROOM, Assumed(100, 0.5))}
    assert costs["SFT"].tokens == 3 * 64 * 2048
    assert costs["rollouts"].tokens == 2 * 128 * 8 * 2048
    assert costs["RL updates"].tokens == 2 * 128 * 8 * (2048 + 100)
    assert costs["evaluation"].tokens == 3 * 2 * 128 * 8 * 2048
    length = 2048
    by_hand = 3 * 64 * 6 * (596_049_920 * length + 28 * 16 * 128 * length**2)
    assert costs["SFT"].flops == pytest.approx(by_hand)
    assert costs["SFT"].seconds == pytest.approx(by_hand / (989e12 * 0.3))


@pytest.mark.slow
def test_cards_of_verl_share_weights_gradients_and_states_and_have_their_own_activations(planned):
    one, model = planned("gpu")
    eight, _ = planned("gpu", "engine=verl", "engine.gpus_per_node=8", "rl.micro_batch_tokens=8704")
    assert gpus_of(one) == 1 and gpus_of(eight) == 8
    whole, shared = (by_name(memory_of(c, model, ROOM, Assumed()))["RL update"].parts for c in (one, eight))
    for part in ("weights", "gradients", "optimizer states"):
        assert shared[part] == pytest.approx(whole[part] / 8, abs=1)
    assert "autocast copies" not in shared and 0 < shared["gathered weights"] < whole["autocast copies"]
    assert shared["activations"] == pytest.approx(whole["activations"] * 8704 / 8192, rel=0.05)


def test_gpu_hours_of_training_do_not_depend_on_the_number_of_cards(planned):
    def hours_of(*overrides):
        config, model = planned("gpu", "engine=verl", "rl.micro_batch_tokens=8704", *overrides)
        return {cost.stage: cost.seconds for cost in costs_of(config, "new", model, ROOM, Assumed())}

    few, many = hours_of("engine.gpus_per_node=4"), hours_of("engine.nodes=4")
    assert few["RL updates"] == many["RL updates"]
    assert few["rollouts"] <= many["rollouts"]  # more cards have fewer sequences each to draw at once


def test_vllm_draws_as_many_sequences_at_once_as_its_cache_holds(planned):
    def seconds(*overrides, tokens):
        config, model = planned("gpu", "sampler=vllm", f"rl.max_response_tokens={tokens}", *overrides)
        return {c.stage: c.seconds for c in costs_of(config, "new", model, ROOM, Assumed())}["rollouts"]

    assert seconds("sampler.max_num_seqs=512", tokens=64) < seconds("sampler.max_num_seqs=16", tokens=64)
    wide, narrow = (seconds(f"sampler.max_num_seqs={n}", tokens=30000) for n in (4096, 512))
    assert wide == narrow  # neither number fits


SMOKE = ["scale=smoke", "logger=none"]


def test_the_command_plans_one_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*SMOKE, "--json", "plan.json", "--price", "2"])
    shown = capsys.readouterr().out
    assert "166,848 parameters" in shown and "Everything fits." in shown and "at 2 an hour" in shown
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["stage"] for stage in written["arms"][0]["memory"]] == [
        *("SFT update", "RL update", "rollout", "evaluation")
    ]
    assert written["total"]["price"] == pytest.approx(2 * written["total"]["gpu_hours"])


def test_a_sweep_sums_its_arms_and_counts_a_shared_sft_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*SMOKE, "clip_method=gppo,cispo", "seed=0,1", "-m", "--json", "plan.json"])
    written = json.loads((tmp_path / "plan.json").read_text())
    arms = written["arms"]
    assert len(arms) == 4
    sft = {cost["key"]: cost["tokens"] for arm in arms for cost in arm["costs"] if cost["stage"] == "SFT"}
    others = sum(cost["tokens"] for arm in arms for cost in arm["costs"] if cost["stage"] != "SFT")
    assert len(sft) == 1 and written["total"]["tokens"] == others + sum(sft.values())
    assert "4 arms on one cpu each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--card", "h100"], f"--card h100: must be one of {', '.join(NAMES)}"),
        (["clip_method=gppo,cispo"], "clip_method=gppo,cispo: a sweep needs -m (--multirun)"),
        (["sweep=figure2"], "a sweep needs -m (--multirun)"),
        (["rl.stpes=3"], "did you mean rl.steps?"),
        (
            ["model=path", "model.path=no/such/folder/here"],
            "model.path=no/such/folder/here: its config.json isn't",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(argv, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main([*SMOKE, *argv])
    assert words in str(leaving.value)


def test_a_folder_without_config_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no config\.json in it"):
        read_model_config(ModelConfig(name="path", path=str(tmp_path)))
    assert read_model_config(ModelConfig(name="path", path=str(save_folder(tmp_path)))).model_type == "llama"
