"""verl's SFT trains each step on the rows that klear_lab's own SFT would: by sft.batches and sft.seed."""

import types

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DistributedSampler

from klear_lab.data.prepare import prepare_data
from klear_lab.engines.verl import sft_rows
from klear_lab.engines.verl.files import has_verl
from klear_lab.engines.verl.sft import ORDER, write_sft_rows
from klear_lab.sft import choose_batch
from support.tokens import examples_of

SETTINGS = """engine=verl engine.gpus_per_node=2 sft.length_curriculum=0 sft.batch_sequences=8 sft.max_tokens=50
data.sft_rows=60""".split()
STEPS = 11  # of 8 rows, more than there are


@pytest.fixture
def written(policy, config, tmp_path):
    """A function from overrides to train.parquet, and each step's responses by klear_lab's own SFT."""

    def write(*overrides):
        made = config(*SETTINGS, f"sft.steps={STEPS}", *overrides)
        rows = prepare_data(made).sft_rows
        examples = examples_of(policy.codec, rows, made.sft.max_tokens)
        number = write_sft_rows(made, rows, examples.table, tmp_path / "train.parquet")
        assert number == len(examples) < len(rows)
        batches = [choose_batch(examples, made.sft, step) for step in range(1, STEPS + 1)]
        return tmp_path / "train.parquet", [[example.response_ids for example in batch] for batch in batches]

    return write


def responses(codec, file, places):
    """Token ids of the responses in some rows of train.parquet."""
    table = pd.read_parquet(file)
    found = []
    for place in places:
        *prompt, answer = table["messages"][place]
        found.append(codec.encode_response([*prompt], answer["content"]))
    return found


def in_order(batches):
    return [sorted(batch) for batch in batches]


@pytest.mark.parametrize("settings", [["sft.batches=epochs"], ["sft.batches=draws"], ["sft.seed=3"]])
def test_the_order_beside_the_rows_is_that_of_our_own_batches(written, policy, settings):
    file, batches = written(*settings)
    order = np.load(file.with_name(ORDER)).reshape(STEPS, 8)
    assert [responses(policy.codec, file, step) for step in order] == batches


def test_in_epochs_no_row_comes_again_before_all_have_come(written):
    file, _ = written("sft.batches=epochs")
    rows, order = len(pd.read_parquet(file)), np.load(file.with_name(ORDER))
    assert 8 < rows < len(order)
    assert sorted(order[:rows]) == list(range(rows))


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_what_the_sampler_shuffles_comes_out_in_the_order(gpus):
    order = np.random.default_rng(0).integers(0, 30, size=STEPS * 8)
    row_N = sft_rows.unshuffled(order)
    samplers = [DistributedSampler(range(len(order)), gpus, rank, drop_last=True) for rank in range(gpus)]
    shares = [row_N[[*sampler]].reshape(STEPS, 8 // gpus) for sampler in samplers]
    together = np.concatenate(shares, axis=1)
    assert in_order(together.tolist()) == in_order(order.reshape(STEPS, 8).tolist())


@pytest.mark.verl
@pytest.mark.skipif(not has_verl(), reason="verl has an environment of its own: make test-verl")
@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("batches", ["epochs", "draws"])
def test_verls_own_loader_hands_out_our_batches(written, policy, batches, gpus):
    from omegaconf import OmegaConf
    from verl.trainer.sft_trainer import SFTTrainer

    file, expected = written(f"sft.batches={batches}")
    data = OmegaConf.create(
        {"apply_chat_template_kwargs": {}, "train_batch_size": 8, "pad_mode": "no_padding", "num_workers": 0}
    )
    rows = sft_rows.KlearSFTRows(str(file), policy.codec.tokenizer, data)
    shares = []
    for rank in range(gpus):
        engine = types.SimpleNamespace(
            get_data_parallel_rank=lambda rank=rank: rank, get_data_parallel_size=lambda: gpus
        )
        config = types.SimpleNamespace(data=data)
        trainer = types.SimpleNamespace(config=config, engine=engine, train_dataset=rows, val_dataset=None)
        SFTTrainer._build_dataloader(trainer)
        trainer.train_sampler.set_epoch(0)
        shares.append([learned(batch) for batch in trainer.train_dataloader])
    together = [[ids for share in step for ids in share] for step in zip(*shares, strict=True)]
    assert in_order(together) == in_order(expected)


def learned(batch):
    """Token ids that each sequence of a batch learns."""
    pairs = zip(batch["input_ids"].unbind(), batch["loss_mask"].unbind(), strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]
