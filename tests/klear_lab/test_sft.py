"""SFT: loss on the response only, schedule, curriculum, invariances."""

import math
import random

import pytest
import torch

from klear_lab import sft
from klear_lab.config import SFTConfig
from klear_lab.data.prepare import prepare_data
from klear_lab.policy.training_state import start_state
from support.tokens import examples_of


def settings(**changes):
    values = dict(
        steps=100,
        learning_rate=1.0,
        batch_sequences=8,
        micro_batch_sequences=8,
        final_learning_rate=0.1,
        warmup_steps=10,
        length_curriculum=0.5,
        max_tokens=128,
    )
    return SFTConfig(**(values | changes))


@pytest.fixture
def examples(policy, config):
    c = config()
    return examples_of(policy.codec, prepare_data(c).sft_rows, 128)


def gradient(policy, batch, micro=100):
    policy.model.zero_grad()
    loss = sft.backward(policy, batch, micro)
    return loss, torch.cat([p.grad.flatten() for p in policy.model.parameters()])


def test_loss_is_the_mean_cross_entropy_of_response_tokens_with_the_stop_token(policy, examples):
    batch = [*examples][:3]
    total, count = 0.0, 0
    for e in batch:
        assert e.response_ids[-1] == policy.codec.tokenizer.eos_token_id
        ids = torch.tensor([e.prompt_ids + e.response_ids])
        logits = policy.model(input_ids=ids).logits[0, len(e.prompt_ids) - 1 : -1]
        target = torch.tensor(e.response_ids)
        total += torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()
        count += len(target)
    assert gradient(policy, batch)[0] == pytest.approx(total / count)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batch_size_and_order_never_change_the_gradient(policy, examples, micro):
    batch = [*examples][::20]
    _, whole = gradient(policy, batch)
    _, parts = gradient(policy, batch[::-1], micro)
    assert (whole - parts).norm() <= 1e-9 * whole.norm()


def test_learning_rate_warms_up_and_ends_at_its_share():
    c = settings()
    rates = [sft.learning_rate(c, step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[54] == pytest.approx(0.55)  # half-way between 10 and 100
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))


def test_the_curriculum_opens_from_the_shortest_to_all_rows(examples):
    c = settings()
    lengths = [len(e.response_ids) for e in examples]
    allowed = [sft.allowed_examples(lengths, c, step) for step in range(1, 101)]
    assert lengths == examples.response_length_E.tolist()
    assert allowed[0] == lengths.count(lengths[0])
    assert allowed == sorted(allowed)
    assert allowed[49] == allowed[-1] == len(examples) > allowed[25]
    assert sft.allowed_examples(lengths, settings(length_curriculum=0.0), 1) == len(examples)


def test_a_batch_is_a_function_of_seed_and_step_and_never_repeats_a_row(examples):
    c = settings(length_curriculum=0.0)
    batch = sft.choose_batch(examples, c, 7)
    assert batch == sft.choose_batch(examples, c, 7) != sft.choose_batch(examples, c, 8)
    assert batch != sft.choose_batch(examples, settings(length_curriculum=0.0, seed=1), 7)
    assert len(set(sft.draw_places(examples.response_length_E, c, 7))) == len(batch) == 8


@pytest.mark.parametrize(("examples", "batch"), [(10, 4), (12, 4), (7, 7), (5, 8), (9, 1)])
def test_in_epochs_every_row_comes_once_before_any_comes_again(examples, batch):
    c = settings(length_curriculum=0.0, batches="epochs", batch_sequences=batch)
    count = min(examples, batch)
    drawn = [sft.draw_places(range(examples), c, step) for step in range(1, 3 * examples + 1)]
    assert {len(places) for places in drawn} == {count}
    flat = [place for places in drawn for place in places]
    epochs = [flat[i : i + examples] for i in range(0, len(flat) - examples + 1, examples)]
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(examples)) for epoch in epochs)
    assert examples == 1 or epochs[0] != epochs[1]
    other = settings(length_curriculum=0.0, batches="epochs", batch_sequences=batch, seed=1)
    assert flat != [
        place for step in range(1, 3 * examples + 1) for place in sft.draw_places(range(examples), other, step)
    ]


def test_batches_are_those_of_a_list_sorted_by_response_length(policy, config):
    """As the first version of this code drew them: from a list of all examples, sorted, in memory."""
    rows = prepare_data(config("data.sft_rows=300")).sft_rows
    pairs = [
        (policy.codec.encode_prompt(r["prompt"]), policy.codec.encode_response(r["prompt"], r["response"]))
        for r in rows
    ]
    short = sorted((pair for pair in pairs if sum(map(len, pair)) <= 60), key=lambda pair: len(pair[1]))
    assert 0 < len(short) < 300
    lengths = [len(response) for _, response in short]
    assert len(set(lengths)) < len(lengths) / 2  # equally long ones keep the order of the rows
    examples = examples_of(policy.codec, rows, 60)
    assert [(e.prompt_ids, e.response_ids) for e in examples] == short
    for step in (1, 17, 49, 50, 51, 100):
        c = settings(seed=3)
        limit = lengths[0] + (lengths[-1] - lengths[0]) * step / 50 if step <= 50 else math.inf
        allowed = sum(length <= limit for length in lengths)
        drawn = random.Random(f"3-sft-{step}").sample(range(allowed), min(allowed, 8))
        batch = sft.choose_batch(examples, c, step)
        assert [(e.prompt_ids, e.response_ids) for e in batch] == [short[i] for i in drawn]


def test_rows_that_are_too_long_are_left_out_and_none_left_is_an_error(policy, config):
    c = config()
    rows = prepare_data(c).sft_rows
    some = examples_of(policy.codec, rows, 50)
    assert 0 < len(some) < len(rows)
    assert max(len(e.prompt_ids) + len(e.response_ids) for e in some) <= 50
    with pytest.raises(ValueError, match="sft.max_tokens=5: every one of 200 SFT rows is longer"):
        examples_of(policy.codec, rows, 5)


def test_a_few_steps_lower_the_loss(policy, examples):
    c = settings(steps=12, learning_rate=2e-2, warmup_steps=2)
    state = start_state(policy, learning_rate=2e-2, adam_betas=[0.9, 0.98], weight_decay=0.0)
    losses = [sft.train_step(state, examples, c)["loss/sft"] for _ in range(12)]
    assert losses[0] == pytest.approx(math.log(len(policy.codec.tokenizer)), rel=0.1)
    assert losses[-1] < 0.8 * losses[0]


def test_a_gradient_that_is_not_finite_stops_before_the_update(policy, examples, monkeypatch):
    state = start_state(policy, learning_rate=1.0, adam_betas=[0.9, 0.98], weight_decay=0.0)
    before = policy.model.lm_head.weight.detach().clone()
    policy.model.model.norm.weight.data[0] = math.nan
    with pytest.raises(FloatingPointError, match="SFT step 1: the gradient norm is nan"):
        sft.train_step(state, examples, settings())
    assert torch.equal(before, policy.model.lm_head.weight)


def test_the_first_losses_are_the_recorded_ones(policy, examples):
    """Golden: a change that should have no effect must leave them; one that should have must say so here."""
    c = settings(steps=3, learning_rate=1e-2, warmup_steps=1)
    state = start_state(policy, learning_rate=1e-2, adam_betas=[0.9, 0.98], weight_decay=0.01)
    losses = [sft.train_step(state, examples, c)["loss/sft"] for _ in range(3)]
    assert losses == pytest.approx([4.68925015266, 4.36345126280, 4.21542497828], rel=1e-6)


def test_another_optimizer_makes_another_checkpoint(config):
    contents = [sft.sft_content(config(*words), "data", "cpu") for words in ([], ["optimizer=adamw_8bit"])]
    assert contents[0] != contents[1]
    assert "optimizer" not in contents[0]  # so that checkpoints of before it counted keep their keys
