"""The plan's assumptions against what others have published: the same work within a factor of two, as docs/models.md
has it, row by row.

Models are built from their public sizes, so nothing is downloaded. Where a row names a mean length, responses are
taken to have it.
"""

import re
from pathlib import Path

import pytest
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from klear_lab.plan.cards import CARDS, PASS_SHARE, Card
from klear_lab.plan.costs import multiples, rl_costs, training_seconds
from klear_lab.plan.memory import Assumed
from klear_lab.plan.model_size import read_model_config, sequence_flops, size_of

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
H100, H20 = CARDS["h100-80gb"], Card("h20", 95 * 2**30, 148e12, 44e12, 4.0e12)
QWEN3 = dict(num_key_value_heads=8, head_dim=128, vocab_size=151936, max_position_embeddings=40960)
MODELS = {
    "Qwen3-0.6B": (Qwen3Config, (1024, 3072, 28, 16), QWEN3 | {"tie_word_embeddings": True}),
    "Qwen3-4B": (Qwen3Config, (2560, 9728, 36, 32), QWEN3 | {"tie_word_embeddings": True}),
    "Qwen3-32B": (Qwen3Config, (5120, 25600, 64, 64), QWEN3 | {"tie_word_embeddings": False}),
    "Llama-3.1-8B": (LlamaConfig, (4096, 14336, 32, 32), dict(num_key_value_heads=8, vocab_size=128256)),
    "Qwen2.5-Math-7B": (
        Qwen2Config,
        (3584, 18944, 28, 28),
        dict(num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False),
    ),
}
VERL = ["engine=verl", "sampler=vllm", "sampler.gpu_memory_utilization=0.8", "sampler.max_num_seqs=1024"]
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# prime-rl, benchmarks/results/BENCHMARKS.md and benchmarks/baselines/*-1xh100-*.json and *-8xh100-*.json: what is
# trained, GPUs, tokens of a sequence, and tokens a second within a step.
TRAINING = [
    ("RL", "Qwen3-0.6B", 1, 16384, 16447),
    ("RL", "Qwen3-0.6B", 1, 65536, 10765),
    ("SFT", "Qwen3-0.6B", 1, 16384, 25561),
    ("RL", "Qwen3-4B", 8, 16384, 55922),
    ("RL", "Qwen3-4B", 8, 65536, 34622),
    ("SFT", "Qwen3-4B", 8, 16384, 52277),
    ("RL, adapters", "Qwen3-0.6B", 1, 16384, 13357),
    ("RL, adapters", "Qwen3-0.6B", 1, 65536, 9963),
    ("RL, adapters", "Qwen3-4B", 8, 16384, 48725),
    ("RL, adapters", "Qwen3-4B", 8, 65536, 32767),
]
# NeMo RL, docs/about/performance-summary.md (v0.4, on policy): GPUs, GPUs that draw a response together, mean tokens
# of a sequence, whether activations are computed again, seconds of a step of 64 x 32 responses of up to 4,096 tokens.
STEPS = [("Llama-3.1-8B", 16, 1, 1060, True, 97.7), ("Qwen3-32B", 32, 4, 3206, False, 393)]
# verl's rollouts on H20s: GPUs, GPUs that draw a response together, prompts, responses to each, mean and most tokens of
# a response, seconds. The first three are from github.com/haonan3/UniRLReport, the others from verl's own
# docs/advance/fully_async.md (colocate sync), which doesn't say the mean; 1,000 tokens are taken.
ROLLOUTS = [
    ("Qwen3-4B", 16, 2, 64, 8, 4096, 4096, 48.27),
    ("Qwen3-4B", 16, 2, 64, 8, 4082, 8192, 79.55),
    ("Qwen3-4B", 16, 2, 64, 8, 1084, 8192, 35.24),
    ("Qwen2.5-Math-7B", 32, 1, 512, 16, 1000, 28672, 357.41),
    ("Qwen2.5-Math-7B", 64, 1, 512, 16, 1000, 28672, 150.72),
    ("Qwen2.5-Math-7B", 128, 1, 512, 16, 1000, 28672, 177.85),
]


@pytest.fixture
def planned(config, tmp_path):
    """A function from a model's name and overrides to the config of a run of it, and the model's."""

    def build(name, *overrides):
        kind, sizes, others = MODELS[name]
        kind(**dict(zip(SIZES, sizes, strict=True)), **others).save_pretrained(tmp_path / name)
        made = config(
            *("scale=gpu", "model=path", f"model.path={tmp_path / name}"),
            *("model.gradient_checkpointing=true", *overrides),
        )
        return made, read_model_config(made.model)

    return build


def agrees(named, predicted, public, form="{:,.0f}"):
    """The prediction is within a factor of two, and the row of the docs that begins so has both, and their ratio."""
    cells = [form.format(predicted), form.format(public), f"{predicted / public:.2f}"]
    assert 0.5 < predicted / public < 2
    row = next((line for line in DOCS.splitlines() if line.startswith(f"| {named} |")), f"| {named} |")
    assert [cell.strip() for cell in row.strip("|").split("|")][1:4] == cells, f"write {cells} into: {row}"


@pytest.mark.parametrize(("what", "name", "gpus", "length", "public"), TRAINING)
def test_training_is_as_fast_as_prime_rl_trains(planned, what, name, gpus, length, public):
    config, model = planned(name, *(["model.lora_rank=16"] if "adapters" in what else []))
    size = size_of(model, config.model.lora_rank)
    seconds = training_seconds(config, H100, sequence_flops(size, length, multiples(config)))
    card = "1 H100" if gpus == 1 else f"{gpus} H100"
    agrees(f"{what}, {name}, {length:,} tokens, {card}: tokens/s", gpus * length / seconds, public)


@pytest.mark.parametrize(("name", "gpus", "together", "mean", "again", "public"), STEPS)
def test_a_step_takes_as_long_as_nemo_rls(planned, name, gpus, together, mean, again, public):
    config, model = planned(
        name,
        *(f"engine.nodes={gpus // 8}", "engine.gpus_per_node=8", f"engine.tensor_parallel={together}"),
        *("rl.steps=1", "rl.prompts_per_step=64", "rl.responses_per_prompt=32", "rl.mini_batch_prompts=16"),
        *("rl.max_response_tokens=4096", f"model.gradient_checkpointing={str(again).lower()}"),
        *VERL,
    )
    assumed = Assumed(prompt_tokens=100, fullness=mean / 4096)
    costs = rl_costs(config, "a run", model, size_of(model), H100, assumed, None)
    step = sum(cost.seconds for cost in costs) / gpus
    agrees(f"a whole step, {name}, {mean:,} tokens, {gpus} H100: s", step, public, "{:.0f}")


@pytest.mark.parametrize(("name", "gpus", "together", "prompts", "each", "mean", "most", "public"), ROLLOUTS)
def test_a_rollout_takes_as_long_as_verls(planned, name, gpus, together, prompts, each, mean, most, public):
    config, model = planned(
        name,
        *(f"engine.nodes={gpus // 8}", "engine.gpus_per_node=8", f"engine.tensor_parallel={together}", *VERL),
        *("rl.steps=1", f"rl.prompts_per_step={prompts}", f"rl.responses_per_prompt={each}"),
        *(f"rl.max_response_tokens={most}", "rl.micro_batch_tokens=36864"),
    )
    assumed = Assumed(prompt_tokens=150, fullness=mean / most)
    rollouts = rl_costs(config, "a run", model, size_of(model), H20, assumed, None)[0]
    lengths = f"{mean:,} of up to {most:,} tokens"
    agrees(f"a rollout, {name}, {lengths}, {gpus} H20: s", rollouts.seconds / gpus, public, "{:.0f}")


def test_a_pass_without_gradient_takes_the_part_of_an_update_that_verls_does():
    """verl's pages have pairs of seconds for old log-probabilities and for updates, with checkpointing."""
    pairs = [(107.71, 269.80), (70.26, 133.41), (53.92, 113.81), (88, 286), (119, 344)]
    public = [old / update for old, update in pairs]
    assert min(public) < 2 / 8 / PASS_SHARE < max(public)
    assert [f"{share:.2f}" for share in (min(public), max(public))] == ["0.31", "0.53"]
    assert re.search(r"0\.31 to\s+0\.53", DOCS)
