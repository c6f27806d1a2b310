"""Prompts that one arm solves alone: counts of benchmarks, both responses side by side, and hostile text stays text."""

import json

import pandas as pd
import pytest

from analysis.report.report import solved_context, write_report
from analysis.report.solved import has_pairs, solved_data
from analysis.runs.damage import DamagedRunsError
from analysis.runs.frames import load_runs

HOSTILE = "</script><b>bold</b>"
PROBE = """<!DOCTYPE html><meta charset="utf-8"><iframe style="border:0;width:390px;height:800px" srcdoc="{page}"></iframe>
<pre id="out"></pre><script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, by = id => inner.getElementById(id);
  const set = (id, value) => {{ by(id).value = value; by(id).dispatchEvent(new Event("change")); }};
  const look = () => ({{
    rows: [...by("solved_counts").querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => cell.textContent)),
    prompts: [...inner.querySelectorAll(".one-sided")].map(box => [box.querySelector("summary").textContent,
      ...[...box.querySelectorAll(".both > div")].map(side => side.textContent)]),
    words: by("solved_counts").textContent + by("solved_prompts").textContent,
    bold: inner.querySelectorAll(".one-sided pre b").length,
    width: [inner.documentElement.scrollWidth, inner.documentElement.clientWidth],
  }});
  set("solved-left", "GPPO"); set("solved-right", "CISPO");
  const seen = {{first: look()}};
  set("solved-right", "GPPO"); seen.same = look();
  set("solved-right", "CISPO"); set("solved-seed", "1"); seen.missing = look();
  document.getElementById("out").textContent = JSON.stringify(seen);
}});</script>"""


def line(step, prompt, response, correct):
    known = {"reward": 1.0, "reason": "correct", "length": 3, "truncated": False}
    return {"step": step, "prompt": prompt, "response": response, "correct": correct, **known}


def answer(place, response, correct):
    known = {"step": 8, "benchmark": "chain6", "prompt_id": f"p{place}", "prompt": f"prompt {place}"}
    return {**known, "response": response, "correct": correct}


@pytest.fixture(scope="module")
def runs(write_run, tmp_path_factory):
    """GPPO solves three quarters of chain6's prompts, CISPO half; seed 1 has GPPO alone."""
    folder = tmp_path_factory.mktemp("solved") / "runs"
    samples = {
        "gppo": [line(4, "a=", "1", True), line(8, "a=", "1", True), line(8, "b=", HOSTILE, True)],
        "cispo": [line(4, "a=", "2", False), line(8, "a=", "1", True), line(8, "b=", "no", False)],
    }
    for method, seed, share in (("gppo", 0, 0.75), ("cispo", 0, 0.5), ("gppo", 1, 0.75)):
        run = write_run(folder, method, seed, score=lambda _, share=share: share)
        (run / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples[method]))
        # 0: both solve it, 12: GPPO alone, 19: neither does
        answers = [answer(place, f"{method} at {place}{HOSTILE}", place < 20 * share) for place in (0, 12, 19)]
        (run / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    return folder


def frame(runs, *ids):
    rows = [(run_id, run_id.partition("-")[0], int(run_id[-1]), runs / run_id) for run_id in ids]
    return pd.DataFrame(rows, columns=["run_id", "arm", "seed", "folder"])


def test_counts_and_responses_are_those_of_the_runs(runs):
    data = solved_data(frame(runs, "gppo-0", "cispo-0"), {"gppo-0": 4, "cispo-0": 4})
    cispo, gppo = data["runs"]
    assert (gppo["arm"], gppo["samples"]) == ("gppo", 4)
    assert sum(2 * right > 4 for right in gppo["right"]["chain6"]) == 15  # of 20
    assert sum(2 * right > 4 for right in cispo["right"]["chain6"]) == 10
    assert gppo["answers"][8] == {"a=": [[1, "1"]], "b=": [[1, HOSTILE]]}
    place = sorted(f"p{n}" for n in range(20)).index("p12")
    assert data["prompts"] == {"chain6": {place: "prompt 12"}}  # the one that not both solve
    assert gppo["kept"] == {"chain6": {place: [[1, f"gppo at 12{HOSTILE}"]]}}
    assert cispo["kept"] == {"chain6": {place: [[0, f"cispo at 12{HOSTILE}"]]}}
    assert data["left_out"] == "" and has_pairs(data)
    assert not has_pairs(solved_data(frame(runs, "gppo-0", "gppo-1"), {}))


def test_what_does_not_fit_is_left_out_earlier_steps_first(runs):
    both = {"gppo-0": 4, "cispo-0": 4}
    data = solved_data(frame(runs, "gppo-0", "cispo-0"), both, budget=110)
    assert data["left_out"] == "There was no room on this page for samples of the earliest 1 steps."
    assert {step for run in data["runs"] for step in run["answers"]} == {8} and data["prompts"]
    data = solved_data(frame(runs, "gppo-0", "cispo-0"), both, budget=40)
    assert "responses to 1 prompts of benchmarks and samples of the earliest 2 steps" in data["left_out"]
    assert data["prompts"] == {} and not any(run["kept"] for run in data["runs"])


def test_damaged_samples_are_named(runs, tmp_path):
    (tmp_path / "gppo-0").mkdir()
    (tmp_path / "gppo-0" / "samples.jsonl").write_text("no JSON\n")
    with pytest.raises(DamagedRunsError, match=r"samples.jsonl: not JSON lines"):
        solved_data(frame(tmp_path, "gppo-0"), {})


def test_no_response_can_end_the_script(runs):
    text = solved_context(solved_data(frame(runs, "gppo-0"), {}))["solved_json"]
    assert "<" not in text and HOSTILE in str(json.loads(text))


@pytest.mark.slow
def test_in_a_browser_both_responses_stand_side_by_side(runs, probed, tmp_path):
    page = write_report(load_runs(runs), tmp_path / "report", kept=tmp_path).read_text(encoding="utf-8")
    seen = probed(page, PROBE)
    first = seen["first"]
    # chain8 has half of chain6's right responses; of a prompt's 4 samples more than 2 must be right
    assert first["rows"][0] == ["chain6", "10", "5", "0", "5"]
    assert first["prompts"] == [
        [
            "chain6, solved by GPPO: prompt 12",
            f"GPPO: 4 of 4 right\N{CHECK MARK} rightgppo at 12{HOSTILE}",
            f"CISPO: 0 of 4 right\N{BALLOT X} wrongcispo at 12{HOSTILE}",
        ],
        ["step 8, solved by GPPO: b=", f"GPPO\N{CHECK MARK} right{HOSTILE}", "CISPO\N{BALLOT X} wrongno"],
        ["step 4, solved by GPPO: a=", "GPPO\N{CHECK MARK} right1", "CISPO\N{BALLOT X} wrong2"],
    ]
    assert first["bold"] == 0 and first["width"][0] <= first["width"][1]
    assert "Choose two different arms" in seen["same"]["words"]
    assert "no run of this seed" in seen["missing"]["words"] and not seen["missing"]["prompts"]
