"""The token explorer: the page's numbers are the records', hostile tokens stay text, and it works in a browser."""

import json
import re

import pandas as pd
import pytest

from analysis.errors import RunFolderError
from analysis.report.explorer import embedded, explorer_data, read_prompts
from analysis.report.report import explorer_context, render, write_report
from analysis.runs.frames import load_runs

HOSTILE = "</script><b>&\n"
PROBE = """<!DOCTYPE html><meta charset="utf-8"><iframe style="border:0;width:390px;height:800px" srcdoc="{page}"></iframe>
<pre id="out"></pre><script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, by = id => inner.getElementById(id);
  const set = (id, value) => {{ by(id).value = value; by(id).dispatchEvent(new Event("change")); }};
  const sides = () => [...inner.querySelectorAll(".side")].map(side => ({{
    arm: side.querySelector("h3").textContent,
    words: side.textContent,
    tokens: [...side.querySelectorAll(".t")].map(t => [t.textContent, t.className, t.style.background]),
  }}));
  const seen = {{first: sides(), prompts: [...by("choose-prompt").options].map(o => o.textContent)}};
  inner.querySelectorAll(".side .t")[1].click();
  seen.details = by("details").textContent;
  set("choose-colour", "ratio");
  seen.ratio = sides();
  set("choose-left", "CISPO");
  seen.left = sides();
  set("choose-prompt", "b");
  seen.b = sides();
  seen.bold = inner.querySelectorAll("#sides b").length;
  seen.width = [inner.documentElement.scrollWidth, inner.documentElement.clientWidth];
  document.getElementById("out").textContent = JSON.stringify(seen);
}});</script>"""


def record(prompts, ratio):
    rows = []
    for prompt in prompts:
        for response in (0, 1):
            for position, (token, region) in enumerate(
                [("7", "none"), (HOSTILE, "low" if prompt == "b" else "none")]
            ):
                number = {"response": response, "position": position, "token_id": position, "token": token}
                values = {"log_prob": -0.123456, "old_log_prob": -0.5, "ratio": ratio, "advantage": -1.0}
                more = {"entropy": 0.25, "region": region, "weight": -0.8}
                rows.append({"prompt_id": prompt, "prompt": f"{prompt}=", **number, **values, **more})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs(write_run, tmp_path_factory):
    """Two arms that share one prompt, and one arm without records."""
    folder = tmp_path_factory.mktemp("explorer") / "runs"
    for method, prompts, ratio in (("gppo", "ab", 0.5), ("cispo", "bc", 2.0), ("clip_higher", "", 1.0)):
        run = write_run(folder, method, 0)
        if prompts:
            (run / "rollouts").mkdir()
            record(prompts, ratio).to_parquet(run / "rollouts" / "step_000012.parquet")
            record(prompts[:1], ratio).to_parquet(run / "rollouts" / "step_000004.parquet")
            (run / "rollouts" / "nonfinite_000003.parquet").write_text("no token record")
    return folder


def frame(runs):
    rows = [("GPPO", 0, runs / "gppo-0"), ("CISPO", 0, runs / "cispo-0")]
    return pd.DataFrame(rows, columns=["arm", "seed", "folder"])


def test_the_numbers_are_those_of_the_record(runs):
    data = explorer_data(frame(runs))
    assert [(r["arm"], r["step"]) for r in data["records"]] == [
        ("CISPO", 12),
        ("GPPO", 12),
        ("CISPO", 4),
        ("GPPO", 4),
    ]
    prompt = data["records"][1]["prompts"][0]
    assert (prompt["id"], prompt["text"], len(prompt["responses"])) == (
        "b",
        "b=",
        2,
    )  # the one with clipped tokens
    response = prompt["responses"][0]
    assert response["token"] == ["7", HOSTILE] and response["region"] == [0, 1]
    assert response["log_prob"] == [-0.1235, -0.1235] and response["ratio"] == [0.5, 0.5]
    assert (response["advantage"], response["weight"]) == (-1.0, [-0.8, -0.8])


def test_what_does_not_fit_is_left_out_earlier_steps_first_and_said(runs):
    data = explorer_data(frame(runs), budget=2200)
    assert {record["step"] for record in data["records"]} == {12}
    assert re.match(r"\d of 4 token records don't fit this page", data["left_out"])
    assert sum(len(embedded(record)) for record in data["records"]) <= 2200


def test_a_damaged_record_is_named(tmp_path):
    path = tmp_path / "step_000001.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(RunFolderError, match=r"step_000001.parquet: not a token record"):
        read_prompts(path)


def test_no_token_can_end_the_script():
    text = embedded({"token": HOSTILE})
    assert "<" not in text and json.loads(text) == {"token": HOSTILE}


def test_without_records_the_page_says_how_to_keep_some():
    page = render(explorer_context([]), "explorer.html.j2")
    assert "have no token records" in page and "token_records.every" in page and 'id="records"' not in page


@pytest.mark.slow
def test_in_a_browser_arms_prompts_and_colours_show_the_right_tokens(runs, probed, tmp_path):
    page = write_report(load_runs(runs), tmp_path / "report", kept=tmp_path).read_text(encoding="utf-8")
    seen = probed(page, PROBE)
    hostile = HOSTILE.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n")
    first = {side["arm"]: side for side in seen["first"]}
    assert seen["prompts"] == ["b="]  # the only one that both arms kept
    assert [t[:2] for t in first["GPPO"]["tokens"][:2]] == [["7", "t r0"], [hostile, "t r1"]]
    details = seen["details"]
    assert json.dumps(HOSTILE)[1:-1] in details and "low: r < 1 - eps_low" in details
    for words in ("ratio 2,", "advantage -1,", "weight -0.8,", "entropy 0.25,", "-0.5 then, -0.1235 now"):
        assert words in details
    colours = {side["arm"]: side["tokens"][0][2] for side in seen["ratio"]}
    assert colours["GPPO"].startswith("rgba(0, 114, 178") and colours["CISPO"].startswith("rgba(213, 94, 0")
    assert [side["arm"] for side in seen["left"]] in (["CISPO"], ["CISPO", "GPPO"])
    assert all(hostile in side["words"] for side in seen["b"]) and seen["bold"] == 0
    assert seen["width"][0] <= seen["width"][1]
