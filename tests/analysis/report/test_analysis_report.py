"""The report: the files written, what the page says with and without runs, and how it stands on a phone."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.paper.papers import PAPERS
from analysis.report.report import write_report
from analysis.runs.frames import load_runs
from analysis.sweeps.kept import FOLDER

Writer = Callable[..., Path]
Renderer = Callable[[str], subprocess.CompletedProcess[str]]

FILES = [
    *(f"{stem}.{form}" for stem in ("clipping", "figure2", "forest") for form in ("pdf", "png", "svg")),
    *(f"{stem}.{form}" for stem in ("claims", "differences", "final_scores") for form in ("csv", "md", "tex")),
    *(
        f"figure2_{part}.{form}"
        for part in ("arms", "cost", "differences", "scores")
        for form in ("csv", "md", "tex")
    ),
    *(f"figure2_{part}.{form}" for part in ("curves", "mechanism") for form in ("pdf", "png", "svg")),
    *(f"paper_figure{n}.{form}" for n in range(1, 6) for form in ("pdf", "png", "svg")),
    *(f"paper_table{n}.{form}" for n in range(1, 7) for form in ("csv", "md", "tex")),
    *(f"paper_{name}.{form}" for name in ("ce_gppo_methods", "dapo") for form in ("csv", "md", "tex")),
    *("claims.json", "index.html"),
]
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:800px" srcdoc="{page}"></iframe><pre id="out"></pre>
<script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
  inner.querySelectorAll("details").forEach(part => part.open = true);
  const image = [...inner.querySelectorAll("svg:not([aria-label^=Forest])")].map(svg => svg.getBoundingClientRect()).find(box => box.width > 0);
  document.getElementById("out").textContent =
    ["scroll", root.scrollWidth, "client", root.clientWidth,
     "image", Math.round(image.width), Math.round(image.height)].join(" ");
}});</script>"""


def text_of(index: Path) -> str:
    """The page's words as a reader sees them."""
    body = re.sub(r"<(style|script|svg).*?</\1>", "", index.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_a_report_is_the_promised_files_and_no_others(full_report: Path) -> None:
    assert sorted(path.name for path in full_report.parent.iterdir()) == sorted(FILES)


def test_the_page_is_one_file_under_five_megabytes_that_fetches_nothing(full_report: Path) -> None:
    page = full_report.read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    sources = re.findall(r'\b(?:src|srcset|href)="([^"]{0,30})', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in page and page.count("url(") == page.count("url(#")
    assert page.count("<svg") > 10 and not re.search(
        r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=.?http", page
    )


def test_no_two_elements_of_the_page_have_one_id(full_report: Path) -> None:
    ids = re.findall(r'\bid="([^"]*)"', full_report.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids)) > 100


def test_the_page_says_whose_numbers_these_are_and_what_it_left_out(full_report: Path) -> None:
    text = text_of(full_report)
    for words in (
        "nothing here is a measurement of Qwen3-8B",
        "3 seeds per arm (chain6: 20 prompts, 4 samples each; chain8: 20 prompts, 4 samples each)",
        "No verdict from one seed",
        "failed: FloatingPointError: loss is NaN at step 7",
        "(othersettings): rl.learning_rate = 0.0001 (drawn: 0.0002)",
        "gppo-0: the same arm, seed and settings as a later run",
        "11 finished, 1 failed, 1 unfinished.",
        "python -m klear_lab.run sweep=figure2 -m",
        "0123abcd",
        "torch 2.13.0",
    ):
        assert words in text, words


def test_claims_and_published_tables_stand_under_their_papers(full_report: Path) -> None:
    text = text_of(full_report)
    for paper in PAPERS:
        assert text.count(paper.title) == 1 and paper.heading in text
        claims = text[text.index(paper.heading) :]
        assert re.search(rf"\b{paper.letter}1\b", claims).start() < 200  # type: ignore[union-attr]
        assert f"{paper.name} : as published" in text
    assert text.index("Table 6 of the paper") < text.index("DAPO : as published") < text.index("Table 1 of DAPO")


@pytest.mark.slow
def test_the_same_runs_give_the_same_files(full_report: Path) -> None:
    before = {path.name: path.read_bytes() for path in full_report.parent.iterdir()}
    write_report(load_runs(full_report.parent.with_name("runs")), full_report.parent)
    assert before == {path.name: path.read_bytes() for path in full_report.parent.iterdir()}


def test_without_runs_the_report_shows_the_paper_and_the_first_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "final_scores.md").write_text("left by an earlier report")
    shutil.copy(FOLDER / "table2.jsonl", tmp_path)
    assert main(["--results", "."]) == 0
    assert capsys.readouterr().out.strip() == f"report: {Path('report') / 'index.html'}"
    text = text_of(tmp_path / "report" / "index.html")
    assert "no runs yet" in text and "python -m klear_lab.run clip_method=gppo,cispo -m" in text
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    names = [name for name in written if not name.startswith("paper_")]
    claims = [f"claims.{form}" for form in ("csv", "json", "md", "tex")]
    figures = [f"{stem}.{form}" for stem in ("figure2", "forest") for form in ("pdf", "png", "svg")]
    assert names == [*claims, *figures, "index.html"]
    assert "From results kept with the code: table2." in text


@pytest.mark.slow
def test_with_only_failed_runs_the_report_says_so_and_escapes_their_errors(
    tmp_path: Path, write_run: Writer
) -> None:
    write_run(tmp_path / "runs", status="failed", error="Traceback\nMemoryError: <script>too big")
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--results", str(tmp_path)]
    assert main(folders) == 0
    text = text_of(tmp_path / "report" / "index.html")
    assert "No run has finished: 1 failed" in text and "failed: MemoryError: <script>too big" in text
    assert "<script>too big" not in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["--runs", "--results"])
def test_a_folder_given_by_hand_that_is_missing_is_exit_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([option, "no/such/folder"])
    assert exit_.value.code == 2
    assert f"{option} no/such/folder: no such folder" in capsys.readouterr().err


def test_evaluations_that_share_no_step_are_exit_1_and_leave_the_old_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_run: Writer
) -> None:
    write_run(tmp_path / "runs", "gppo", evaluated=(4,))
    write_run(tmp_path / "runs", "cispo", evaluated=(8,))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("old")
    assert main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 1
    assert "share no evaluated step" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "report").iterdir()] == ["old"]


def test_the_command_explains_itself() -> None:
    command = [sys.executable, "-m", "analysis", "--help"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert "--runs DIR" in done.stdout and "default: report" in done.stdout


@pytest.mark.parametrize("width", [390, *(pytest.param(w, marks=pytest.mark.slow) for w in (700, 1200))])
def test_nothing_scrolls_sideways_and_the_console_is_quiet(
    full_report: Path, rendered: Renderer, tmp_path: Path, width: int
) -> None:
    page = html.escape(full_report.read_text(encoding="utf-8"), quote=True)
    # a frame gives the page its width, because a headless window is never narrower than 500 pixels
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=page), encoding="utf-8")
    done = rendered(probe.as_uri())
    measured = re.search(r'<pre id="out">scroll (\d+) client (\d+) image (\d+) (\d+)</pre>', done.stdout)
    assert measured, done.stderr[-2000:]
    scroll, client, image_width, image_height = map(int, measured.groups())
    assert scroll <= client and 0 < client <= width
    # the phone gets the form with panels below each other
    assert (image_height > image_width) == (width <= 640)
    assert "CONSOLE" not in done.stderr


CELL, ARM = '<td data-label="chain6 (avg@4) SFT">', "GRPO w/ Clip-Higher"


@pytest.mark.parametrize("wide", [(CELL, f"{CELL}0.125 ± 0.011</td>" * 12 + CELL), (ARM, "very_long_name_" * 20)])
def test_a_table_that_is_too_wide_scrolls_by_itself(
    full_report: Path, rendered: Renderer, tmp_path: Path, wide: tuple[str, str]
) -> None:
    page = full_report.read_text(encoding="utf-8")
    assert wide[0] in page
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=1200, page=html.escape(page.replace(*wide), quote=True)), encoding="utf-8")
    measured = re.search(r"scroll (\d+) client (\d+) image", rendered(probe.as_uri()).stdout)
    assert measured and int(measured[1]) <= int(measured[2]) <= 1200


def test_a_claims_link_opens_its_sweeps_section(full_report: Path, rendered: Renderer) -> None:
    page = rendered(f"{full_report.as_uri()}#sweep_figure3").stdout
    assert re.findall(r'<details id="(sweep_\w+)" open', page) == ["sweep_figure3"]


FILTER_PROBE = """<!DOCTYPE html><iframe style="border:0;width:1200px;height:800px" srcdoc="{page}"></iframe>
<pre id="out"></pre><script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument;
  const link = [...inner.querySelectorAll("#claims a")].find(a => a.textContent === "figure2");
  const linked = inner.querySelector(link.getAttribute("href")).tagName;
  inner.querySelectorAll("details").forEach(part => part.open = true);
  const main = inner.querySelector("[data-filter]"), section = inner.querySelector("#sweep_figure2 [data-filter]");
  const shown = (box, selector) => [...box.querySelectorAll(selector)].filter(node => node.getClientRects().length).length;
  const count = box => ["GPPO", "CISPO"].map(arm => [
    shown(box, `g.line[data-arm="${{arm}}"]`), shown(box, `tr[data-arm="${{arm}}"]`),
    getComputedStyle(box.querySelector(`g.key[data-arm="${{arm}}"]`)).opacity]);
  const pairs = box => [...box.querySelectorAll("[data-pair]")].filter(node => node.getClientRects().length)
    .map(node => node.dataset.pair);
  const seen = {{linked, buttons: [...main.querySelectorAll(".filter button")].map(b => b.textContent), before: count(main)}};
  const button = [...main.querySelectorAll(".filter button")].find(b => b.textContent === "GPPO");
  button.click();
  Object.assign(seen, {{hidden: count(main), pairs: pairs(main), pressed: button.getAttribute("aria-pressed"), section: count(section)}});
  button.click();
  Object.assign(seen, {{after: count(main), all: pairs(main)}});
  document.getElementById("out").textContent = JSON.stringify(seen);
}});</script>"""


def test_a_click_hides_an_arm_in_its_part_of_the_page_and_a_second_one_shows_it(
    full_report: Path, rendered: Renderer, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.html"
    page = html.escape(full_report.read_text(encoding="utf-8"), quote=True)
    probe.write_text(FILTER_PROBE.format(page=page), encoding="utf-8")
    done = rendered(probe.as_uri())
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found.group(1)))
    assert seen["linked"] == "DETAILS"
    assert seen["buttons"] == ["GRPO w/ Clip-Higher", "CISPO", "GPPO"]
    # chain6, chain8, norm, the paper's three, and seven panels of clipping; one row of final scores
    assert seen["before"] == seen["after"] == [[13, 1, "1"], [13, 1, "1"]]
    assert seen["hidden"] == [[0, 0, "0.2"], [13, 1, "1"]] and seen["pressed"] == "false"
    assert seen["pairs"] == ["CISPO \N{MINUS SIGN} GRPO w/ Clip-Higher"] * 2 and len(seen["all"]) == 6
    assert seen["section"][0][0] > 0  # another part of the page keeps its own
