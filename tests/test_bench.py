"""benchmarks/bench.py: its parts measure both sides in small, its tables are generated, and a regression is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as the command does

from bench_parts.figures import OURS, Figure, Part, regressions  # noqa: E402
from bench_parts.page import BEGIN, END, tables, write_tables  # noqa: E402


def bench(*words, **environment):
    command = [sys.executable, "benchmarks/bench.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


def part_with(**seconds):
    """A part with one figure, of ours and of a peer."""
    figure = Figure("a step", "s", {OURS: seconds["ours"], "TRL": seconds["peer"]}, "TRL", goal=0.5)
    return Part("Steps", "python benchmarks/bench.py", "2026-11-26", "2 cores", len(seconds["ours"]), [figure])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which the parts share data and checkpoint."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rl_step", "sft", "sampling", "head", "programs", "growth"])
def test_each_part_measures_all_sides(name, work, tmp_path):
    words = ["--parts", name, "--out", tmp_path, "--work", work]
    done = bench("--small", "--repeats", 1, *words, BENCH_PICTURES=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (part,) = json.loads((tmp_path / "results.json").read_text()).values()
    assert part["figures"]
    for figure in part["figures"]:
        assert all(value > 0 for values in figure["values"].values() for value in values), figure
        assert (figure["ratio"] is None) == (name == "growth")
    assert (tmp_path / "growth.png").exists() == (name == "growth")


def test_a_growth_of_more_than_a_tenth_of_the_ratio_is_named_and_a_slower_machine_is_not():
    kept = part_with(ours=[1.0, 1.1, 1.2], peer=[2.0, 2.2, 2.4])
    assert regressions(kept, part_with(ours=[3.2], peer=[6.0])) == []  # all slower, the ratio 0.53 against 0.5
    (line,) = regressions(kept, part_with(ours=[1.2], peer=[2.0]))
    assert line == "a step: 0.6 of TRL's, was 0.5 (+20 %)"


def test_what_is_kept_is_read_as_it_was_written():
    part = part_with(ours=[1.0, 1.1, 1.2], peer=[2.0])
    assert Part.of(json.loads(json.dumps(part.saved()))) == part


def test_tables_say_whether_a_goal_is_met_and_replace_what_stood_there(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(page, {"rl_step": part_with(ours=[1.0, 1.4, 1.2], peer=[2.0])})
    text = page.read_text()
    assert "| a step | 1.2 s (1 to 1.4) | TRL: 2 s | 0.60 | not met: 0.50 |" in text
    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")


def test_the_page_is_what_the_numbers_give():
    file = ROOT / "benchmarks" / "results.json"
    parts = {name: Part.of(part) for name, part in json.loads(file.read_text()).items()}
    assert f"{BEGIN}\n{tables(parts)}\n{END}" in (ROOT / "benchmarks" / "README.md").read_text()


def test_numbers_of_small_sizes_never_reach_the_page_of_the_repository():
    done = bench("--small")
    assert done.returncode == 2 and "--out" in done.stderr


def test_an_unknown_part_is_refused_before_anything_is_measured():
    done = bench("--parts", "rl_step,no_such")
    assert done.returncode == 2 and "no_such" in done.stderr and "sampling" in done.stderr


@pytest.mark.slow
def test_a_check_of_a_part_without_kept_numbers_says_what_keeps_them(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "work" / "runs").mkdir(parents=True)  # as if data and checkpoint were there
    done = bench("--check", "--parts", "head", "--out", tmp_path, "--work", tmp_path / "work")
    assert done.returncode == 0 and "head: nothing is kept to compare with" in done.stdout
