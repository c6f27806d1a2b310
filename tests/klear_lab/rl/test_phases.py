"""Phases of RL: whose rows, which settings, a fresh optimizer, and how a wrong one is named."""

import pytest
import torch

from klear_lab import stages
from klear_lab.config import ConfigError
from klear_lab.rl import trainer
from klear_lab.rl.phases import check_rows, phase_of, phases_of, total_steps
from klear_lab.storage.interruption import Interrupted

MATH_THEN_CODE = (
    "rl.phases=[{ability: math}, {ability: code, steps: 3, learning_rate: 5e-5, mini_batch_prompts: 4}]"
)
ROWS = [{"ability": "math", "id": "m"}, {"ability": "CODE", "id": "c"}]


def test_without_phases_there_is_one_of_all_rows_and_steps(config):
    rl = config("rl.steps=7").rl
    (phase,) = phases_of(rl)
    assert (phase.start, phase.settings, phase.rows(ROWS), total_steps(rl)) == (0, rl, ROWS, 7)


def test_a_phase_takes_what_it_does_not_set_from_the_run(config):
    rl = config(MATH_THEN_CODE, "rl.steps=2").rl
    math, code = phases_of(rl)
    assert (math.start, code.start, total_steps(rl)) == (0, 2, 5)
    assert math.settings.learning_rate == rl.learning_rate and math.settings.steps == 2
    assert (code.settings.learning_rate, code.settings.mini_batch_prompts) == (5e-5, 4)
    assert code.settings.alpha == rl.alpha
    assert [phase_of(rl, step).ability for step in (1, 2, 3, 5)] == ["math", "math", "code", "code"]


def test_rows_are_chosen_by_ability_in_either_case(config):
    math, code = phases_of(config(MATH_THEN_CODE).rl)
    assert (math.rows(ROWS), code.rows(ROWS)) == (ROWS[:1], ROWS[1:])


def test_a_phase_without_rows_is_named(config):
    with pytest.raises(
        ConfigError, match=r"rl.phases\[1\].ability=code: none of 1 RL rows has it; there are math"
    ):
        check_rows(config(MATH_THEN_CODE).rl, ROWS[:1])


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ("[math]", r"rl.phases\[0\]=math: must be a mapping"),
        ("[{}, {ability: code, lr: 1}]", r"rl.phases\[1\].lr: unknown; one of ability, steps, learning_rate"),
        ("[{max_response_tokens: 9}]", r"rl.phases\[0\].max_response_tokens: unknown"),
        ("[{steps: many}]", r"rl.phases\[0\].steps: Value 'many'"),
        ("[{steps: -1}]", r"rl.phases\[0\].steps=-1: must be at least 0"),
        ("[{ability: [math]}]", r"rl.phases\[0\].ability=\['math'\]: must be one word"),
        ("[{}, {ability: 5}]", r"rl.phases\[1\].ability=5: must be one word"),
        ("[{mini_batch_prompts: 3}]", r"rl.phases\[0\].mini_batch_prompts=3: must divide"),
    ],
)
def test_a_wrong_phase_is_named_by_its_key(config, phases, words):
    with pytest.raises(ConfigError, match=words):
        config(f"rl.phases={phases}")


def test_the_order_of_phases_is_part_of_a_runs_identity(composed_config):
    from klear_lab.identity import run_id

    there, back = "[{ability: math}, {ability: code}]", "[{ability: code}, {ability: math}]"
    assert run_id(composed_config(f"rl.phases={there}")) != run_id(composed_config(f"rl.phases={back}"))


def test_a_phase_without_rows_is_refused_before_sft(run, monkeypatch):
    monkeypatch.setattr(stages, "run_sft_stage", lambda run: pytest.fail("SFT was started"))
    phases = "rl.phases=[{ability: math, steps: 1}, {ability: code, steps: 1}]"
    with pytest.raises(ConfigError, match=r"rl.phases\[1\].ability=code: none of \d+ RL rows has it"):
        run(phases)


WORLDS = ["data_source=chain_and_functions", "recipe=math_then_code", "rl.warmup_updates=4", "eval.every=9"]


def test_math_is_followed_by_code_with_a_fresh_optimizer(run, monkeypatch):
    real, seen = trainer.train_step, []

    def watch(state, *rest):
        result = real(state, *rest)
        moments = [s["step"].item() for s in state.optimizer.state.values()]
        seen.append(({row["ability"] for row in result.prompts}, state.updates, max(moments)))
        return result

    monkeypatch.setattr(trainer, "train_step", watch)
    folder = run(*WORLDS)
    assert seen == [({"math"}, 2, 2), ({"math"}, 4, 4), ({"code"}, 2, 2), ({"code"}, 4, 4)]
    rates = [line["optim/lr"] for line in folder.metrics() if line["stage"] == "rl" and line["step"]]
    assert rates == pytest.approx([5e-5, 1e-4, 5e-5, 1e-4])
    assert {*folder.evaluations()["benchmark"]} == {"chain6", "chain8", "code4", "code6"}


def test_a_run_stopped_between_two_phases_goes_on_bit_for_bit(run, monkeypatch, composed_config, tmp_path):
    from contextlib import nullcontext

    from klear_lab import pipeline
    from klear_lab.pipeline import run_pipeline
    from klear_lab.storage.interruption import Stop
    from klear_lab.validation import parse
    from support.runs import same_result

    stop, real = Stop(), trainer.train_step

    def stop_after_math(state, *rest):
        result = real(state, *rest)
        stop.asked = state.step == 2
        return result

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", stop_after_math)
        patch.setattr(pipeline, "stop_on_signals", lambda file: nullcontext(stop))
        with pytest.raises(Interrupted, match="saved after RL step 2"):
            run(*WORLDS)
    torch.manual_seed(7)
    composed = composed_config(f"runs_dir={tmp_path / 'other'}", *WORLDS)
    same_result(run(*WORLDS), run_pipeline(parse(composed), composed))
