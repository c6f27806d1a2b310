"""`python -m klear_lab.data`: what it prints and writes, its messages, the cache that it shares with runs."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console

from klear_lab.config import ConfigError
from klear_lab.data.__main__ import main
from klear_lab.data.look import (
    draw,
    evenly_spaced,
    histograms,
    lengths,
    round_width,
    sample,
    shares,
    shortened,
    show,
)
from klear_lab.data.prepare import PreparedData, prepare_data
from klear_lab.data.read_rows import read_rows
from klear_lab.data.write_parquet import write_parquet
from klear_lab.pipeline import run_pipeline
from klear_lab.validation import parse

ROOT = Path(__file__).parents[3]
CODE = [
    *("data_source=functions", "data_source.benchmark_steps=[4]", "data_source.sources=3"),
    *("data.sft_rows=80", "difficulty_filter=hard"),
]


@pytest.fixture
def look(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder, in this process; what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        main(["scale=smoke", *arguments])
        return capsys.readouterr().out

    return call


@pytest.fixture
def fails(look, capsys):
    """Runs a command that doesn't work; its exit status and message."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            look(*arguments)
        code = exit_.value.code
        return (1, code) if isinstance(code, str) else (code, capsys.readouterr().err)

    return call


def drawn(renderable):
    console = Console(width=80, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def sft_row(**changes):
    row = {"prompt": [{"role": "user", "content": "1+1="}], "response": "<think>1+1=2</think>2", "source": "a"}
    return {**row, "teacher": "b", "difficulty": None, "correct": None, **changes}


def test_the_command_shows_and_writes_the_data_without_a_run_folder(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "klear_lab.data", "scale=smoke", "--samples", "1", f"runs_dir={tmp_path / 'made'}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for words in ("Preparation", "sft: 200 rows", "\nrl: ", "benchmark chain6: 4 rows", "difficulty"):
        assert words in result.stdout
    assert max(map(cell_len, result.stdout.splitlines())) <= 80
    files = ["data_look/sft.parquet", "data_look/rl.parquet"]
    files += ["data_look/benchmarks/chain6.parquet", "data_look/benchmarks/chain8.parquet"]
    assert [line.strip() for line in result.stdout.splitlines()[-4:]] == files
    assert all((tmp_path / file).is_file() for file in [*files, "data_look/steps.json"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data_look", "made"]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["cache"]


def test_what_is_shown_and_written_is_what_prepare_data_makes(look, config):
    out = look(*CODE)
    made = prepare_data(config(*CODE))
    about = json.loads(Path("data_look/steps.json").read_text())
    assert about == {"steps": made.steps, "benchmarks": ["code4"]}
    for step in made.steps:
        assert step["taken"] - step["kept"] == sum(step["dropped"].values())
        assert f"{step['taken']:,} ┃ {step['kept']:,}" in " ".join(out.replace("│", "┃").split())
        for reason, number in step["dropped"].items():
            assert f"{number:,}: {reason.split()[0]}" in out
    sets = {"sft": made.sft_rows, "rl": made.rl_rows, "benchmarks/code4": made.benchmarks["code4"]}
    for name, rows in sets.items():
        assert pq.read_table(f"data_look/{name}.parquet").to_pylist() == rows
    for title, rows in zip(("sft", "rl", "benchmark code4"), sets.values(), strict=True):
        assert f"{title}: {len(rows)} rows" in out
    right = sum(row["correct"] for row in made.sft_rows)
    assert f"{right} ({right / len(made.sft_rows):.1%})" in out
    for source in ("curated", "textbook", "forum"):
        rows = [row for row in made.sft_rows if row["source"] == source]
        assert any(line.split()[:3] == [source, "misconceptions", str(len(rows))] for line in out.splitlines())


def test_what_is_written_can_be_read_back_as_a_source_of_files(look, config):
    look(*CODE)
    made = prepare_data(config(*CODE))
    assert read_rows(["data_look/sft.parquet"], None, "sft").rows == made.sft_rows
    for name, rows in (("rl", made.rl_rows), ("benchmarks/code4", made.benchmarks["code4"])):
        assert read_rows([f"data_look/{name}.parquet"], None, "rl").rows == rows
    frame = pd.read_parquet("data_look/rl.parquet")
    assert frame["prompt"][0][0]["content"] == made.rl_rows[0]["prompt"][0]["content"]
    assert frame["passed"].tolist() == [row["passed"] for row in made.rl_rows]


def test_the_same_config_writes_the_same_bytes(look):
    look("--out", "a")
    look("--out", "b", "cache_dir=another_cache")
    files = sorted(p.relative_to("a") for p in Path("a").rglob("*") if p.is_file())
    assert len(files) == 5
    assert all((Path("a") / file).read_bytes() == (Path("b") / file).read_bytes() for file in files)


@pytest.mark.slow
def test_data_is_prepared_once_for_looks_and_runs(look, composed_config):
    assert "prepared in" in look()
    assert "found prepared" in look("--samples", "0", "clip_method=cispo", "seed=3")
    composed = composed_config("clip_method=grpo")
    assert run_pipeline(parse(composed), composed).record["stages"]["data"]["from_cache"]
    assert "prepared in" in look("data.seed=1")


def test_a_run_prepares_the_data_for_looks(look, composed_config):
    composed = composed_config()
    assert not run_pipeline(parse(composed), composed).record["stages"]["data"]["from_cache"]
    assert "found prepared" in look()


def test_benchmarks_of_an_earlier_look_leave_and_other_files_stay(look):
    look()
    Path("data_look/benchmarks/mine.parquet").write_text("")
    look("data_source.benchmark_steps=[8,7]")
    assert sorted(p.stem for p in Path("data_look/benchmarks").iterdir()) == ["chain7", "chain8", "mine"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("difficulty_filter=tough", "Available options in 'difficulty_filter':\n\teasy\n\thard\n\toverall"),
        ("data.sft_row=3", "data.sft_row: there is no such key; did you mean data.sft_rows?"),
        ("data.subset=best", "data.subset=best: must be one of k_center, random"),
        ("data.sft_budget=999", "data.sft_budget=999: only 200 SFT rows are left by then"),
        ("sweep=figure2", "sweep=figure2: one config at a time is looked at"),
        ("seed=0,1", "Ambiguous value for argument 'seed=0,1'"),
    ],
)
def test_a_wrong_setting_is_one_message_that_says_what_is_allowed(fails, override, words):
    status, message = fails(override)
    assert status == 1
    assert words in message
    assert not Path("data_look").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "-1"], "--samples -1: must be at least 0"),
        (["--sample_rows", "3"], "unrecognized arguments: --sample_rows"),
        (["-m"], "-m: one config at a time is looked at"),
        (["--out", "taken/look"], "taken is a file; must be a folder"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_prepared(fails, tmp_path, options, words):
    (tmp_path / "taken").write_text("")
    status, message = fails(*options)
    assert status == 2
    assert words in message
    assert not Path("runs").exists()


def test_a_folder_that_is_something_elses_is_left_alone(fails, tmp_path):
    (tmp_path / "data_look").mkdir()
    (tmp_path / "data_look" / "steps.json").write_text("[1, 2]")
    assert "isn't the steps of prepared data; choose another folder" in fails()[1]
    assert [p.name for p in (tmp_path / "data_look").iterdir()] == ["steps.json"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "benchmarks").write_text("")
    with pytest.raises(ConfigError, match="benchmarks: File exists; choose another folder"):
        write_parquet(PreparedData([], [], {}, []), tmp_path)


def test_help_shows_the_options_the_groups_and_examples(fails, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "--samples N" in out and "--out DIR" in out
    assert "difficulty_filter=  easy, hard, overall" in out
    assert "sft_rows, rl_rows" in out
    assert "python -m klear_lab.data scale=smoke --samples 5" in out


def test_columns_that_are_null_in_every_row_keep_their_type(tmp_path):
    write_parquet(PreparedData([sft_row()] * 2500, [], {"empty": []}, []), tmp_path)
    schema = pq.read_schema(tmp_path / "sft.parquet")
    assert [str(schema.field(name).type) for name in ("difficulty", "correct")] == ["double", "bool"]
    assert read_rows([str(tmp_path / "sft.parquet")], None, "sft").rows == [sft_row()] * 2500
    assert pq.read_table(tmp_path / "benchmarks" / "empty.parquet").num_rows == 0


def test_every_histogram_counts_every_row(config):
    made = prepare_data(config(*CODE))
    titles = []
    for rows in (made.sft_rows, made.rl_rows, made.benchmarks["code4"]):
        for histogram in histograms(rows):
            titles.append(histogram.title.split(" (")[0])
            assert sum(histogram.bars.values()) == len(rows)
    assert titles == [
        *("prompt length", "response length", "difficulty"),
        *("prompt length", "test cases", "completions that passed"),
        *("prompt length", "test cases"),
    ]


def test_bins_of_lengths_are_equally_wide_and_the_last_reaches_to_the_longest():
    assert lengths("", [3, 3, 7]).bars == {"3": 2, "7": 1}
    histogram = lengths("", [*range(100), 5000, None])
    assert [*histogram.bars.items()][:2] == [("0 to 9", 10), ("10 to 19", 10)]
    assert [*histogram.bars.items()][-2:] == [("90 to 5,000", 11), ("unknown", 1)]
    assert histogram.about == "0 to 5,000, median 50"
    assert [round_width(n) for n in (0.1, 1.5, 2, 2.1, 7, 101)] == [1, 2, 2, 5, 10, 200]


def test_difficulties_are_shown_one_by_one_or_in_tenths():
    assert shares("", [0.125, 1, 0.125, None]).bars == {"0.125": 2, "1.000": 1, "unknown": 1}
    tenths = shares("", [i / 20 for i in range(21)]).bars
    assert [*tenths.values()] == [2] * 9 + [3]
    assert next(iter(tenths)) == "0.0 to 0.1"


def test_a_bar_is_as_long_as_its_share_and_never_nothing():
    lines = drawn(draw(lengths("title", [1] * 1000 + [2] * 500 + [3]))).splitlines()
    bars = [line.count("█") for line in lines if "█" in line]
    assert bars[0] == 38 - 1 - 5 - 2
    assert bars[1:] == [bars[0] // 2, 1]


def test_samples_lie_evenly_over_the_rows():
    assert evenly_spaced(200, 2) == [50, 150]
    assert evenly_spaced(3, 10) == [0, 1, 2]
    assert evenly_spaced(5, 0) == []


def test_a_long_text_is_shown_by_its_beginning_and_end():
    assert shortened("short\n  indented") == "short\n  indented"
    lines = shortened("first " + "word " * 3000 + "last").split("\n")
    assert (lines[0][:5], lines[-1][-4:], len(lines)) == ("first", "last", 11)
    assert lines[7] == "[... 15,010 characters in all ...]"
    assert len(shortened("x\n" * 40).split("\n")) == 11


def test_a_row_cannot_steer_the_terminal_or_be_read_as_markup():
    text = drawn(sample(sft_row(response="[bold]\x1b[2J\x07[/nothing]", source="[red]\x1b"), 1))
    assert "[bold]\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}[/nothing]" in text
    assert "source [red]\N{REPLACEMENT CHARACTER}" in text


def test_real_data_fits_80_columns_too():
    sft = [
        sft_row(
            prompt=[{"role": "system", "content": "\u6c49\u5b57 " * 200}, {"role": "user", "content": "x" * 500}],
            response="<think>" + "w" * (i**2 // 20) + "</think>",
            source=f"source-{i % 50}/" + "s" * 40,
            teacher="a/teacher-with-a-long-name-" + "t" * 30,
            difficulty=None if i % 3 else i / 1000,
            correct=[True, False, None][i % 3],
        )
        for i in range(1000)
    ]
    dropped = {f"source {'s' * 50} {i}": 100_000 + i for i in range(3)}
    step = {"step": "data_source=" + "d" * 60, "set": "sft", "taken": 1_234_567, "kept": 1_000, "dropped": dropped}
    console = Console(width=80, file=io.StringIO())
    show(PreparedData(sft, [], {"aime24": []}, [step]), 2, console)
    text = console.file.getvalue()
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "30 more" in text and "benchmark aime24: 0 rows" in text and "not checked" in text
