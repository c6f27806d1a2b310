"""The table of metrics: names are told apart, headings fit a panel, and its page is up to date."""

import subprocess
import sys
from dataclasses import replace

import pytest

from klear_lab import metrics
from klear_lab.metrics import CONSOLE, HEADING_LETTERS, METRICS, PAGE, heading, metric_of, rl_patterns


def test_the_page_is_what_the_command_writes():
    page = PAGE.read_text(encoding="utf-8")
    assert metrics.with_tables(page) == page, "run python -m klear_lab.metrics"
    assert [one.name for one in METRICS if f"| `{one.name}` |" not in page] == []


@pytest.mark.parametrize("words", [["--help"], ["--page", "elsewhere"], ["docs/metrics.md"]])
def test_only_the_command_without_arguments_writes_the_page(monkeypatch, tmp_path, words):
    monkeypatch.setattr(metrics, "PAGE", tmp_path / "docs" / "metrics.md")
    metrics.PAGE.parent.mkdir()
    metrics.PAGE.write_text(f"{metrics.START}{metrics.END}")
    with pytest.raises(SystemExit):
        metrics.main(words)
    assert metrics.PAGE.read_text() == f"{metrics.START}{metrics.END}"
    metrics.main([])
    assert "| `ratio/max` |" in metrics.PAGE.read_text()


def test_every_name_belongs_to_one_metric():
    for one in METRICS:
        logged = one.name.replace("<benchmark>", "aime_2024").replace("<n>", "64").replace("<why>", "timeout")
        assert [other.name for other in METRICS if other.matches(logged)] == [one.name]


@pytest.mark.parametrize(
    "name", ["eval/chain6", "eval/a/b/avg@4", "clip/low_fractions", "reward/reason/", "xratio/max"]
)
def test_a_name_that_only_looks_like_a_metrics_is_unknown(name):
    assert metric_of(name) is None and heading(name) == name


def test_a_heading_is_the_title_with_its_unit_in_lines_that_fit_a_panel():
    assert heading("policy/entropy_low_clipped") == "Entropy, low-clip\nregion (nats)"
    assert heading("clip/gradient_share") == "Both regions\n(share of gradient)"
    assert heading("ratio/p01") == "Importance ratio,\n1 % quantile"
    assert heading("optim/grad_norm") == "Gradient norm"
    drawn = [heading(one.name) for one in METRICS if one.group]
    assert max(len(line) for words in drawn for line in words.split("\n")) <= HEADING_LETTERS
    assert max(words.count("\n") for words in drawn) == 1


def test_every_metric_has_a_title_and_a_formula_of_its_own():
    assert all(one.title and one.formula and "|" not in one.formula for one in METRICS)
    panels = [heading(one.name) for one in METRICS]
    assert len(set(panels)) == len(panels)


def test_wandb_draws_over_rl_steps_what_sft_does_not_log():
    patterns = rl_patterns()
    assert {"clip/*", "eval/*", "loss/policy", "time/rollout_s"} <= set(patterns)
    assert not {"loss/*", "loss/sft", "optim/*", "time/train_s"} & set(patterns)


def test_the_console_shows_metrics_of_the_table():
    assert [name for name in CONSOLE if metric_of(name) is None] == []


def test_what_stands_around_the_tables_is_left_alone(monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(metrics, "METRICS", (replace(METRICS[0], name="clip/new", formula="share of new tokens"),))
    changed = metrics.with_tables(page)
    assert "| `clip/new` |" in changed and "`ratio/max`" not in changed
    assert changed.partition(metrics.START)[0] == page.partition(metrics.START)[0]
    assert changed.partition(metrics.END)[2] == page.partition(metrics.END)[2]
    with pytest.raises(ValueError, match="substring not found"):
        metrics.with_tables("a page without the marks")


def test_the_table_needs_no_torch():
    code = "import sys, klear_lab.metrics; sys.exit(bool({'torch', 'pandas', 'wandb'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
