"""Sample responses on the page: arms answer the same prompts, hostile texts stay text, damage is named."""

import json

import pandas as pd
import pytest

from analysis.errors import RunFolderError
from analysis.report.report import render, write_report
from analysis.report.samples import LONGEST, SAMPLE_TYPES, read_texts, samples_section, shortened
from analysis.runs.damage import DamagedRunsError
from analysis.runs.frames import load_runs

HOSTILE = "</pre><script>alert(1)</script>&amp;"


def line(step, prompt, response, **more):
    known = {"reward": 1.0, "correct": True, "reason": "correct", "length": 3, "truncated": False}
    return {"step": step, "prompt": prompt, "response": response, **known, **more}


@pytest.fixture
def runs(tmp_path):
    """Writes the samples of arms of seed 0, and returns the frame of their runs."""

    def write(**arms):
        rows = []
        for arm, lines in arms.items():
            folder = tmp_path / arm
            folder.mkdir()
            if lines:
                (folder / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
            rows.append((f"id-{arm}", arm, 0, folder))
        return pd.DataFrame(rows, columns=["run_id", "arm", "seed", "folder"])

    return write


def test_arms_answer_the_same_prompts_at_the_last_step_that_they_share(runs):
    gppo = [line(4, "a=", "early"), line(8, "a=", "one"), line(8, "b=", "two"), line(12, "a=", "late")]
    cispo = [line(8, "b=", "three"), line(8, "b=", "second to b"), line(8, "c=", "four")]
    found = samples_section(runs(gppo=gppo, cispo=cispo, grpo=[]))
    assert (found["seed"], found["step"]) == (0, 8)
    (prompt,) = found["prompts"]
    assert prompt["text"] == "b="
    assert [(one["arm"], one["response"]) for one in prompt["answers"]] == [("cispo", "three"), ("gppo", "two")]


def test_without_a_shared_step_each_arm_shows_its_last(runs):
    found = samples_section(runs(gppo=[line(4, "a=", "1"), line(8, "a=", "2")], cispo=[line(6, "a=", "3")]))
    assert found["step"] is None
    assert [(one["step"], one["response"]) for one in found["prompts"][0]["answers"]] == [(6, "3"), (8, "2")]


def test_runs_without_samples_have_no_section(runs):
    assert samples_section(runs(gppo=[], cispo=[])) is None
    assert "no sample responses" in render({"samples": None}, "samples.html.j2")


def test_no_text_is_markup(runs):
    lines = [line(1, HOSTILE, HOSTILE, reason=HOSTILE, truncated=True, reward=-0.5)]
    page = render({"samples": samples_section(runs(gppo=lines))}, "samples.html.j2")
    assert "<script" not in page and page.count("&lt;/pre&gt;&lt;script&gt;") == 3
    assert "reward \N{MINUS SIGN}0.50" in page and "3 tokens, truncated" in page


def test_the_middle_of_a_long_text_is_left_out():
    text = shortened("a" * 2 * LONGEST + "end")
    assert text.endswith("aend") and f"[... {LONGEST + 3} characters ...]" in text
    assert shortened("x" * LONGEST) == "x" * LONGEST


@pytest.mark.parametrize(
    "text", ["no JSON\n", "[]\n", '{"step": 1}\n', json.dumps(line(1, "a", 5)) + "\n", '{"step": "1"}\n']
)
def test_a_line_that_is_no_sample_is_named(tmp_path, text):
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(RunFolderError, match=r"samples.jsonl: not JSON lines of samples"):
        read_texts(path, SAMPLE_TYPES)


def test_half_a_line_at_the_end_is_not_a_sample(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(line(1, "a", "b\u2028c")) + '\n{"step": 2, "pro')
    assert [one["response"] for one in read_texts(path, SAMPLE_TYPES)] == ["b\u2028c"]


def test_damaged_samples_are_named_with_their_run(runs):
    frame = runs(gppo=[line(1, "a", "b")], cispo=[{"step": 1}])
    with pytest.raises(DamagedRunsError) as error:
        samples_section(frame)
    assert [*error.value.found] == ["id-cispo"]


@pytest.mark.slow
def test_the_report_shows_them(write_run, tmp_path):
    for method in ("gppo", "cispo"):
        run = write_run(tmp_path / "runs", method, 0)
        (run / "samples.jsonl").write_text(json.dumps(line(12, "7+8=", f"by {method} {HOSTILE}")) + "\n")
    page = write_report(load_runs(tmp_path / "runs"), tmp_path / "report", kept=tmp_path).read_text()
    assert "of RL step 12, seed 0" in page and "by gppo &lt;/pre&gt;" in page and "by cispo &lt;/pre&gt;" in page
