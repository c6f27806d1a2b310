"""A loss or gradient that isn't finite: not applied, its batch kept, the run stopped with its name, or gone on."""

import math

import pandas as pd
import pytest
import torch

from klear_lab import sft
from klear_lab.rl import trainer
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.storage.run_folder import RunFolder
from support.training import alternate_rewards, state_of, weights

BAD_STEP, BAD_UPDATE = 2, 1


@pytest.fixture
def poison(monkeypatch):
    """Makes one update's loss (`inf`), or a gradient under a finite loss (`nan`), what it shouldn't be."""

    def put(what):
        real, calls = trainer.backward, []

        def backward(policy, *arguments, **keywords):
            result = real(policy, *arguments, **keywords)
            calls.append(1)
            if len(calls) == 2 * (BAD_STEP - 1) + BAD_UPDATE:  # two updates a step
                if what == "inf":
                    object.__setattr__(result, "policy_loss", math.inf)
                else:
                    next(policy.model.parameters()).grad[0, 0] = math.nan
            return result

        monkeypatch.setattr(trainer, "backward", backward)

    return put


@pytest.mark.parametrize(("what", "words"), [("inf", "the loss is inf"), ("nan", "the gradient norm is nan")])
def test_the_run_stops_with_the_step_the_update_and_the_batch(run, poison, tmp_path, what, words):
    poison(what)
    with pytest.raises(FloatingPointError, match=rf"RL step 2: {words}; .*update was not applied") as raised:
        run()
    (file,) = (tmp_path / "runs").glob("*/rollouts/nonfinite_000002.parquet")
    assert f"(update 1 of the step); its batch is in {file}" in str(raised.value)
    assert len(pd.read_parquet(file)) == 2 * 4  # prompts in a mini-batch, responses
    (record,) = [RunFolder(path.parent).record for path in (tmp_path / "runs").glob("*/run.json")]
    assert record["status"] == "failed" and words in record["error"]


def test_a_stopped_run_goes_on_from_before_the_step(run, poison, monkeypatch, tmp_path, composed_config):
    from klear_lab.pipeline import run_pipeline
    from klear_lab.validation import parse
    from support.runs import same_result

    with monkeypatch.context() as patch:
        real, calls = trainer.backward, []

        def third_fails(*arguments, **keywords):
            result = real(*arguments, **keywords)
            calls.append(1)
            if len(calls) == 3:
                raise FloatingPointError("as the trainer does it")
            return result

        patch.setattr(trainer, "backward", third_fails)
        with pytest.raises(FloatingPointError, match="as the trainer does it"):
            run()
    composed = composed_config(f"runs_dir={tmp_path / 'other'}")
    same_result(run(), run_pipeline(parse(composed), composed))


@pytest.mark.parametrize("what", ["inf", "nan"])
def test_a_skipped_update_is_counted_kept_and_otherwise_as_if_it_had_not_been(run, poison, what):
    poison(what)
    folder = run("rl.on_nonfinite=skip")
    counts = {
        m["step"]: (m["optim/updates"], m["optim/skipped_updates"])
        for m in folder.metrics()
        if "optim/updates" in m
    }
    assert counts == {1: (2, 0), 2: (1, 1)}
    assert all(math.isfinite(v) for m in folder.metrics() for v in m.values() if isinstance(v, float))
    assert (folder.path / "rollouts" / "nonfinite_000002.parquet").exists()
    assert folder.record["status"] == "finished"


def test_skipping_leaves_weights_and_optimizer_alone(policy, config, monkeypatch):
    """Two mini-batches, the first one bad: what the second one does is what it does alone."""
    from klear_lab.data.prepare import prepare_data
    from klear_lab.verify.verifiers import Verifiers

    c = config("rl.on_nonfinite=skip", "data.filter_rl=false")
    rows = prepare_data(c).rl_rows
    start = {k: v.clone() for k, v in policy.model.state_dict().items()}
    found = []
    for bad_is_there in (True, False):
        alternate_rewards(monkeypatch)
        policy.model.load_state_dict(start)
        state = state_of(policy, c)
        with monkeypatch.context() as patch:
            if bad_is_there:
                patch.setattr(trainer, "backward", first_gradient_is_nan(trainer.backward))
            else:
                patch.setattr(trainer, "update_once", without_the_first(trainer.update_once))
            with Verifiers(rows, c.reward, workers=1, sandbox="auto") as verifiers:
                trainer.train_step(state, rows, c, verifiers, TransformersSampler(policy))
        found.append((state.updates, weights(policy)))
    assert found[0][0] == found[1][0] == 1
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def first_gradient_is_nan(backward):
    calls = []

    def bad(policy, *arguments, **keywords):
        result = backward(policy, *arguments, **keywords)
        calls.append(1)
        if len(calls) == 1:
            for p in policy.model.parameters():
                p.grad = torch.full_like(p, math.nan)
        return result

    return bad


def without_the_first(update_once):
    calls = []

    def alone(state, mini_batch, method, old_log_probs, *rest):
        calls.append(1)
        if len(calls) == 1:
            responses = [r for micro_batch in mini_batch for r in micro_batch]
            old_log_probs |= {r.number: torch.zeros(len(r.response_ids)) for r in responses}
            raise FloatingPointError("left out")
        return update_once(state, mini_batch, method, old_log_probs, *rest)

    return alone


def test_sft_stops_with_its_step_and_batch(run, monkeypatch, tmp_path):
    real = sft.backward

    def backward(policy, batch, *limits, calls=[]):  # noqa: B006
        loss = real(policy, batch, *limits)
        calls.append(1)
        if len(calls) == 3:
            next(policy.model.parameters()).grad[0, 0] = math.inf
        return loss

    monkeypatch.setattr(sft, "backward", backward)
    with pytest.raises(
        FloatingPointError, match=r"SFT step 3: the gradient norm is (inf|nan); the update was not"
    ):
        run()
    (file,) = (tmp_path / "runs").glob("*/nonfinite_sft_000003.parquet")
    frame = pd.read_parquet(file)
    assert len(frame) == 8 and frame["response"].str.startswith("<think>").all()
    monkeypatch.undo()
    run()
    assert not file.exists()
