"""No page, table or file shows NaN, infinity or None as a number, whatever seeds and metrics are missing."""

import csv
import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.draw.cells import ONE_SEED, one_seed_note
from analysis.report.report import write_report
from analysis.runs.frames import load_runs

NO_NUMBER = re.compile(r"(?<![\w-])[-+\N{MINUS SIGN}]?(?:nan|NaN|NAN|inf|Inf|[Ii]nfinity|None|NaT|<NA>)(?![\w-])")


def spoil(run: Path, value: float) -> None:
    """Makes numbers of a run's metrics, tokens and samples NaN or infinite, as an overflow does."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[3:]:
        line |= {"optim/grad_norm": value, "policy/entropy": None, "clip/gradient_share": value}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    numbers = {"log_prob": value, "old_log_prob": -0.5, "ratio": value, "advantage": value, "entropy": value}
    words = {"prompt_id": "p", "prompt": "1+1=", "response": 0, "token_id": 1, "token": "2", "region": "low"}
    (run / "rollouts").mkdir()
    frame = pd.DataFrame([{**words, **numbers, "weight": value, "position": place} for place in range(2)])
    frame.to_parquet(run / "rollouts" / "step_000012.parquet")
    sample = {"step": 12, "prompt": "1+1=", "response": "2", "reward": value, "correct": True}
    sample |= {"reason": "correct", "length": 1, "truncated": False}
    (run / "samples.jsonl").write_text(json.dumps(sample) + "\n")


@pytest.fixture(
    scope="module",
    # words, since a NaN isn't equal to itself: the folder would be made anew for each test
    params=[pytest.param(word, marks=pytest.mark.slow) for word in ("nan", "inf")],
)
def spoilt(request, write_run, tmp_path_factory) -> Path:
    """The folder of a report of one seed an arm, another of two, and an arm that failed."""
    folder = tmp_path_factory.mktemp("spoilt") / "runs"
    for method, seed in (("gppo", 0), ("cispo", 0), ("cispo", 1)):
        spoil(write_run(folder, method, seed), float(request.param))
    write_run(folder, "clip_higher", 0, status="failed", error="Traceback\nMemoryError", evaluated=(0,))
    return write_report(load_runs(folder), folder.parent / "report", kept=folder).parent


def words_of(page: str) -> str:
    """The page's words with those of its figures, without styles and scripts."""
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)))


def test_no_file_of_the_report_shows_what_is_no_number(spoilt):
    page = (spoilt / "index.html").read_text(encoding="utf-8")
    assert NO_NUMBER.findall(words_of(page)) == []
    for path in (*spoilt.glob("*.md"), *spoilt.glob("*.tex"), *spoilt.glob("*.csv")):
        assert NO_NUMBER.findall(path.read_text(encoding="utf-8")) == [], path.name
    with (spoilt / "final_scores.csv").open(encoding="utf-8") as file:
        assert {row["final_half_width"] for row in csv.DictReader(file) if row["seeds"] == "1"} == {""}


def test_json_for_programs_and_for_the_page_is_strict(spoilt):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    page = (spoilt / "index.html").read_text(encoding="utf-8")
    embedded = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)
    assert embedded
    for text in (*embedded, (spoilt / "claims.json").read_text()):
        json.loads(text, parse_constant=refuse)


def test_one_seed_shows_its_mean_and_the_tables_say_why(spoilt):
    page = words_of((spoilt / "index.html").read_text(encoding="utf-8"))
    assert page.count(ONE_SEED) >= 5  # claims and their plot, final scores, differences, the sweep's own tables
    rows = (spoilt / "figure2_scores.md").read_text(encoding="utf-8")
    assert re.search(r"\| gppo \| 1 \| \d\.\d{3} \|", rows) and ONE_SEED in rows


def test_the_note_stands_only_where_a_number_is_of_one_seed():
    assert one_seed_note([1, 3]) == f" {ONE_SEED}"
    assert one_seed_note([2, 3]) == one_seed_note([]) == one_seed_note([0]) == ""


def test_the_words_that_are_looked_for_are_found():
    found = ["0.500 ± nan", "NaN", "-inf", "\N{MINUS SIGN}inf", "| None |", "Infinity", ">nan<"]
    assert all(NO_NUMBER.search(text) for text in found)
    assert not any(
        NO_NUMBER.search(text) for text in ("none", "No clipping", "information", "nano", "token-nan-x")
    )
