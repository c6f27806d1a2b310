"""Curves along tokens and seconds: in a browser points move to what was spent, and back as they were drawn."""

import json

import pytest

from analysis.report.report import write_report
from analysis.runs.frames import load_runs

PROBE = """<!DOCTYPE html><iframe style="border:0;width:1200px;height:800px" srcdoc="{page}"></iframe>
<pre id="out"></pre><script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, box = inner.querySelector("[data-spent]");
  const svg = box.querySelector(".wide svg"), panels = [...svg.querySelectorAll("g.panel")];
  const points = (panel, arm) => [...panel.querySelector(`g.line[data-arm="${{arm}}"]`).querySelectorAll("use")].map(use => +use.getAttribute("x"));
  const look = () => ({{
    gppo: points(panels[0], "GPPO"), cispo: points(panels[0], "CISPO"),
    title: [...panels[0].querySelectorAll(".steps > g > text")].map(text => text.textContent),
    ticks: [...panels[0].querySelectorAll(".steps > g:not(.off) > g > text")].map(text => text.textContent),
    pressed: [...box.querySelectorAll(".axes button")].filter(b => b.getAttribute("aria-pressed") === "true").map(b => b.textContent),
    titles: [...svg.querySelectorAll("text")].map(text => text.textContent).filter(text => text === "RL step").length,
    whole: svg.outerHTML.replaceAll(' class=""', ''),
  }});
  const click = axis => box.querySelector(`button[data-axis=${{axis}}]`).click();
  const seen = {{step: look()}};
  click("tokens"); seen.tokens = look();
  click("seconds"); seen.seconds = look();
  click("step"); seen.back = look();
  document.getElementById("out").textContent = JSON.stringify(seen);
}});</script>"""


@pytest.fixture(scope="module")
def page(write_run, tmp_path_factory) -> str:
    """CISPO generates twice the tokens of GPPO in half of its time, at every step."""
    folder = tmp_path_factory.mktemp("axes") / "runs"
    for method, tokens, seconds in (("gppo", 1000, 4.0), ("cispo", 2000, 2.0)):
        for seed in (0, 1):
            path = write_run(folder, method, seed) / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines[2:]:
                times = {"time/rollout_s": seconds / 2, "time/reward_s": seconds / 4, "time/train_s": seconds / 4}
                line |= {**times, "perf/tokens_per_s": tokens / seconds}
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_report(load_runs(folder), folder.parent / "report", kept=folder).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_click_moves_points_to_what_was_spent_and_another_moves_them_back(page, probed):
    seen = probed(page, PROBE)
    step, tokens, seconds = seen["step"], seen["tokens"], seen["seconds"]
    assert len(step["gppo"]) == 4 and step["gppo"] == step["cispo"]  # evaluated at steps 0, 4, 8 and 12
    start, end = step["gppo"][0], step["gppo"][-1]
    assert tokens["cispo"] == pytest.approx(step["cispo"], abs=0.2)  # the most tokens reach the end
    assert tokens["gppo"] == pytest.approx([start + (x - start) / 2 for x in step["gppo"]], abs=0.2)
    assert seconds["gppo"] == pytest.approx(step["gppo"], abs=0.2)
    assert seconds["cispo"] == pytest.approx([start + (x - start) / 2 for x in step["cispo"]], abs=0.2)
    assert end > start + 50
    assert (tokens["title"], seconds["title"]) == (["generated tokens"], ["seconds of RL"])
    assert tokens["ticks"] == ["0", "5k", "10k", "15k", "20k"]
    assert seconds["ticks"] == ["0", "10", "20", "30", "40"]
    assert seconds["pressed"] == ["seconds of RL"]
    assert tokens["titles"] == 3  # the paper's own panels stay along steps
    assert seen["back"]["whole"] == step["whole"]


def test_without_times_there_is_no_choice(full_report, rendered):
    dom = rendered(full_report.as_uri()).stdout
    ours, ablations = dom.split("Figure 2: scores and gradient norm over RL", 1)[1].split("Each ablation", 1)
    assert "g.panel" not in ours and 'class="panel"' in ours
    assert 'data-axis="tokens"' not in ours and 'data-axis="tokens"' in ablations  # kept results have times
