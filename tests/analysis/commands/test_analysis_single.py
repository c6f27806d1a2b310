"""One table or figure alone, the same as in the report; and what is sent to wandb, as far as offline allows."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.claims.judge import claims_json, judge_claims, sweeps_at_hand, write_claims
from analysis.commands.wandb_push import workspace_of
from analysis.runs.frames import load_runs
from analysis.runs.wandb_file import history, read_file
from analysis.sweeps.kept import FOLDER, read_results


@pytest.fixture(scope="module")
def runs(write_sweep, tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("single") / "runs")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table2"], "| Benchmark | Easy Only True | Easy Mixed | Hard Only True |"),
        (["table2", "--format", "latex"], r"\multicolumn{2}{c}{Easy} & \multicolumn{2}{c}{Hard}"),
        (["paper_table1", "--format", "csv"], "POLARIS-4B-Preview,81.2,79.4,58.7,58.5,53.0"),
        (["claims"], "| C7 | GPPO ends above GRPO with Clip-Higher |"),
        (["final_scores"], "| GPPO | 3 |"),
        (["figure2_cost"], "| gppo | 109 |"),
    ],
)
def test_a_table_is_printed_in_the_format_asked_for(runs, capsys, arguments, words):
    assert main([*arguments, "--runs", str(runs)]) == 0
    assert words in capsys.readouterr().out


@pytest.fixture(scope="module")
def confounded(write_run, tmp_path_factory):
    """Runs of one arm at another learning rate, and one that differs from its arm."""
    folder = tmp_path_factory.mktemp("confounded")
    for method, rate in (("gppo", 1e-3), ("cispo", 2e-4), ("clip_higher", 2e-4)):
        for seed in range(3):
            write_run(folder, method, seed, settings={"rl": {"learning_rate": rate}}, run_id=f"{method}-{seed}")
    write_run(folder, "cispo", 3, settings={"rl": {"learning_rate": 1.0}}, run_id="strange")
    return folder


@pytest.mark.parametrize("name", ["claims", "claims_second", "figure2_scores", "figure2_differences", "next"])
def test_numbers_of_confounded_runs_come_with_a_note(name, confounded, capsys):
    assert main([name, "--runs", str(confounded)]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "note: figure2: Confounded and left out: strange, rl.learning_rate = 1.0 (others of its arm: 0.0002).",
        "note: figure2: Confounded: arms differ in rl.learning_rate too (0.0002, 0.001), which isn't swept.",
    ]
    if name == "claims":
        marked = [line.split(" | ")[0] for line in printed.out.splitlines() if " † |" in line]
        assert (
            marked == ["| C7", "| C8", "| C9", "| C10", "| C18"]
            and " †: runs of the sweep are confounded" in printed.out
        )


def test_numbers_of_other_runs_come_without(confounded, runs, capsys):
    for name, folder in (("table2", confounded), ("stability_scores", confounded), ("figure2_cost", runs)):
        assert main([name, "--runs", str(folder)]) == 0
    printed = capsys.readouterr()
    assert "Confounded" not in printed.err and "†" not in printed.out


def test_a_claims_caveats_are_in_claims_json_and_its_table(confounded, tmp_path):
    entries = claims_json(judge_claims(sweeps_at_hand(load_runs(confounded))))
    with_caveats = {entry["id"]: entry["caveats"] for entry in entries if entry["caveats"]}
    assert [*with_caveats] == ["C7", "C8", "C9", "C10", "C18"] and "strange" in with_caveats["C8"][0]
    write_claims(entries, tmp_path)
    assert "strange" in (tmp_path / "claims.csv").read_text() and "†" in (tmp_path / "claims.tex").read_text()


def test_a_run_that_lacks_a_benchmark_stops_only_what_needs_its_final_score_and_is_named(
    write_run, tmp_path, capsys
):
    for method in ("gppo", "cispo"):
        path = write_run(tmp_path, method, 0) / "evaluations.parquet"
    pd.read_parquet(path).query("benchmark == 'chain6'").to_parquet(path)
    for name, status in (("figure2_cost", 0), ("table2", 0), ("final_scores", 1), ("differences", 1)):
        assert main([name, "--runs", str(tmp_path)]) == status, name
    assert capsys.readouterr().err.count("the same benchmarks: chain8 is missing in cispo-0;") == 2


@pytest.mark.parametrize(
    ("arguments", "file", "start"),
    [
        (["figure2", "--format", "pdf"], "figure2.pdf", b"%PDF"),
        (["figure3"], "figure3.png", b"\x89PNG"),
        (["stability_map", "--out", "map.svg"], "map.svg", b"<?xml"),
        pytest.param(
            ["paper_figure5", "--format", "svg", "--narrow"], "paper_figure5.svg", b"<?xml", marks=pytest.mark.slow
        ),
        (["claims", "--format", "latex", "--out", "claims.tex"], "claims.tex", rb"\begin{table}"),
        (["collapse_choice", "--format", "svg"], "collapse_choice.svg", b"<?xml"),  # also a table
        pytest.param(["collapse_choice", "--out", "choice.png"], "choice.png", b"\x89PNG", marks=pytest.mark.slow),
        (["collapse_choice", "--out", "choice.csv"], "choice.csv", b"method"),
    ],
)
def test_a_figure_is_a_file(runs, tmp_path, monkeypatch, arguments, file, start):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--runs", str(runs)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figur3"], "did you mean figure3"),
        (["table2", "--format", "pdf"], "table2 is a table; one of markdown, latex, csv"),
        (["figure3", "--format", "latex"], "figure3 is a figure; one of png, svg, pdf"),
    ],
)
def test_what_there_is_not_is_one_message(runs, capsys, arguments, words):
    assert main([*arguments, "--runs", str(runs)]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweeps_report_joins_its_group_in_wandb(runs, tmp_path, capsys):
    assert main(["wandb", "figure2", "--offline", "--runs", str(runs), "--dir", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert str(file.parent) in capsys.readouterr().out
    while not (rows := history(file)):  # wandb's service may still be writing
        time.sleep(0.1)
    (row,) = rows
    for key in ("tables/figure2_scores", "tables/claims", "figures/figure2_curves"):
        assert row[f"{key}/_type"] in ("table-file", "image-file"), key
    assert len(read_file(file).config["runs"]) == 9
    pictures = [*file.parent.glob("files/media/images/figures/*.png")]
    assert len(pictures) == 2 and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    table = next(file.parent.glob("files/media/table/tables/figure2_scores*.json"))
    assert len(json.loads(table.read_text())["data"]) == 3


def test_a_workspace_shows_the_sweeps_runs_grouped_by_arm(tmp_path):
    kept = read_results(FOLDER / "overlong.jsonl")
    spec = json.loads(workspace_of(kept, "team", "project")._to_model().model_dump_json(by_alias=True))["spec"]
    (runs,) = spec["section"]["runSets"]
    assert [(f["key"]["name"], f["value"]) for f in runs["filters"]["filters"]] == [("group", "overlong")]
    assert [key["name"] for key in runs["grouping"]] == ["rl.value.max_response_tokens", "rl.value.mask_overlong"]
    panels = [p for part in spec["section"]["panelBankConfig"]["sections"] for p in part["panels"]]
    drawn = [panel["config"]["metrics"] for panel in panels]
    assert ["eval/chain6/avg@4"] in drawn and ["clip/gradient_share"] in drawn and ["optim/grad_norm"] in drawn


def test_a_sweep_without_runs_is_not_sent(runs, tmp_path, capsys):
    assert main(["wandb", "table2", "--offline", "--runs", str(runs), "--dir", str(tmp_path)]) == 1
    assert "table2: no finished runs; there are some of figure2" in capsys.readouterr().err


def test_a_workspace_can_be_had_as_a_file(runs, tmp_path):
    assert main(["wandb", "--workspace", str(tmp_path / "w.json"), "--runs", str(runs)]) == 0
    (one,) = json.loads(Path(tmp_path / "w.json").read_text())
    assert one["displayName"] == "figure2: clip_method"
