"""Checkpoints: what is damaged is passed by, and a run goes on from the one before it to the same bits."""

import logging
from pathlib import Path

import pytest
import torch

from klear_lab import sft
from klear_lab.pipeline import run_pipeline
from klear_lab.policy.training_state import find_checkpoint, load_checkpoint, save_checkpoint
from klear_lab.rl import trainer
from klear_lab.storage.files import forget_checkpoints, previous
from klear_lab.validation import parse
from support.runs import SMALL, same_result
from support.training import state_of


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "one bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "no checksum": lambda path: path.with_name(f"{path.name}.crc32").unlink(),
}


@pytest.fixture
def saved(policy, config, tmp_path):
    """Two checkpoints: of steps 1 and 2, the second the newer."""
    state = state_of(policy, config())
    for state.step in (1, 2):
        save_checkpoint(state, tmp_path / "checkpoint.pt")
    return state, tmp_path / "checkpoint.pt"


def step_of(state, path):
    state.step = -1
    load_checkpoint(state, path)
    return state.step


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_by_for_the_one_before_it(saved, damage, caplog):
    state, path = saved
    assert (find_checkpoint(path), step_of(state, path)) == (path, 2)
    DAMAGE[damage](path)
    with caplog.at_level(logging.WARNING):
        found = find_checkpoint(path)
    assert (found, step_of(state, found)) == (previous(path), 1)
    assert f"{path}: damaged; going on from the one before it, checkpoint.previous.pt" in caplog.text


def test_two_damaged_checkpoints_are_none_and_none_at_all_needs_no_words(saved, caplog):
    _, path = saved
    flip(path), flip(previous(path))
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(path) is None
    assert "damaged, and there is no other; this stage starts anew" in caplog.text
    caplog.clear()
    forget_checkpoints(path)
    assert list(path.parent.iterdir()) == []
    assert find_checkpoint(path) is None and not caplog.text


def test_one_checkpoint_is_enough_where_space_is_short(policy, config, tmp_path):
    state, path = state_of(policy, config()), tmp_path / "checkpoint.pt"
    for state.step in (1, 2, 3):
        save_checkpoint(state, path, keep=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.crc32"]
    assert step_of(state, find_checkpoint(path)) == 3


@pytest.mark.parametrize("renames", range(4))
def test_a_kill_between_any_two_renames_leaves_a_checkpoint_to_go_on_from(saved, monkeypatch, renames):
    state, path = saved
    real, calls = Path.replace, []

    def killed(self, target):
        if len(calls) == renames:
            raise SystemExit  # nothing below runs, as with SIGKILL
        calls.append(1)
        return real(self, target)

    state.step = 3
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            save_checkpoint(state, path)
    assert step_of(state, find_checkpoint(path)) == 2
    for state.step in (4, 5):
        save_checkpoint(state, path)
        assert step_of(state, find_checkpoint(path)) == state.step
        state.step = 4
    flip(path)
    assert step_of(state, find_checkpoint(path)) == 4


def test_a_bit_that_torch_does_not_miss_is_missed_here(tmp_path):
    """Why there is a checksum: torch.load reads a tensor with a flipped bit."""
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "x.pt")
    flip(tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt")["a"].abs().max() > 0


@pytest.mark.parametrize(("damaged", "goes_on_at"), [(1, 2), pytest.param(2, 0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_run_goes_on_from_the_last_good_checkpoint_to_the_same_bits(
    run, monkeypatch, composed_config, tmp_path, stage, damaged, goes_on_at
):

    module = {"sft": sft, "rl": trainer}[stage]
    settings = [*SMALL, "rl.steps=5", "sft.steps=5", "checkpoint.sft_every=1"]
    real = module.train_step
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_step", lambda s, *a: real(s, *a) if s.step < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*settings)
    (path,) = (tmp_path / "runs").rglob("checkpoint.pt")
    for file in [path, previous(path)][:damaged]:
        flip(file)
    steps = []
    monkeypatch.setattr(module, "train_step", lambda s, *a: steps.append(s.step) or real(s, *a))
    again = run(*settings)
    assert steps[0] == goes_on_at
    composed = composed_config(f"runs_dir={tmp_path / 'other'}", *settings)
    same_result(again, run_pipeline(parse(composed), composed))
