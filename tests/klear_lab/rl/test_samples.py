"""Sample responses: which are chosen, what a line says of one, and at which steps a run keeps them."""

import pytest

from klear_lab.pipeline import run_pipeline
from klear_lab.rl.samples import Sample, choose_samples, sample_lines
from klear_lab.sampling.types import Response
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from klear_lab.verify.rewards import Score
from support.runs import same_result

PROMPTS = [{"prompt": [{"role": "user", "content": text}]} for text in ("1+2=", "3+4=")]
RIGHT, WRONG = Score(1.0, True, True, 1.0, "correct"), Score(0.0, False, True, -1.0, "wrong")
FIELDS = ["step", "prompt", "response", "reward", "correct", "reason", "length", "truncated"]


def test_the_first_response_to_each_prompt_comes_before_any_second_one():
    sampled = [[Response([1], False), Response([2], False)], [Response([3], False), Response([4], True)]]
    scores = [[RIGHT, WRONG], [WRONG, RIGHT]]
    found = choose_samples(PROMPTS, sampled, scores, 3)
    assert [one.response.token_ids for one in found] == [[1], [3], [2]]
    assert [one.row["prompt"][0]["content"] for one in found] == ["1+2=", "3+4=", "1+2="]
    assert [one.score for one in found] == [RIGHT, WRONG, WRONG]
    assert len(choose_samples(PROMPTS, sampled, scores, 9)) == 4
    assert choose_samples(PROMPTS, sampled, scores, 0) == []


def test_a_line_has_the_texts_and_the_score(policy):
    ids = [*policy.codec.encode("<think>3</think>3"), policy.codec.stop_token_ids[0]]
    (line,) = sample_lines(policy.codec, 7, [Sample(PROMPTS[0], Response(ids, False), RIGHT)])
    values = [7, "1+2=", "<think>3</think>3", 1.0, True, "correct", len(ids), False]
    assert [*line] == FIELDS and [*line.values()] == values


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["eval.every=2"], [2, 3]),
        pytest.param(["eval.every=2", "samples.every=1"], [1, 2, 3], marks=pytest.mark.slow),
        pytest.param(["samples.responses=0"], [], marks=pytest.mark.slow),
    ],
)
def test_a_run_keeps_the_steps_asked_for_and_the_last(run, overrides, steps):
    folder = run("rl.steps=3", *overrides)
    assert [line["step"] for line in folder.lines("samples.jsonl")] == [step for step in steps for _ in range(4)]
    assert (folder.path / "samples.jsonl").exists() == bool(steps)


def test_the_last_evaluation_keeps_its_first_answers_to_each_prompt(run, tmp_path):
    folder = run("rl.steps=2", "eval.every=1", "eval.samples=3", "data.benchmark_rows=4", "samples.answers=2")
    lines = folder.lines("answers.jsonl")
    evaluated = folder.evaluations().query("step == 2 and sample < 2")
    keys = ["step", "benchmark", "prompt_id", "correct"]
    assert [[line[key] for key in keys] for line in lines] == evaluated[keys].values.tolist()
    assert all(line["prompt"] for line in lines) and any(line["response"] for line in lines)
    none = run("rl.steps=0", "samples.answers=0", f"runs_dir={tmp_path / 'without'}")
    assert not (none.path / "answers.jsonl").exists()


def test_samples_change_neither_the_run_id_nor_a_result(composed_config, tmp_path):
    folders = []
    for name, more in (("without", "samples.responses=0"), ("with", "samples.every=1")):
        composed = composed_config(f"runs_dir={tmp_path / name}", "rl.steps=2", more)
        folders.append(run_pipeline(parse(composed), composed))
    assert folders[0].path.name == folders[1].path.name
    (folders[1].path / "samples.jsonl").unlink()
    same_result(*folders)


def test_what_was_kept_after_a_checkpoint_is_removed_and_written_again(run):
    folder = run("rl.steps=2", "eval.every=1")
    before = folder.lines("samples.jsonl")
    RunFolder(folder.path).rewind(1)
    assert (
        RunFolder(folder.path).lines("samples.jsonl") == [line for line in before if line["step"] <= 1] != before
    )
