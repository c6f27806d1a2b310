"""Claims: every one of each paper is there, asks for what its sweep varies, and gets the right verdict from runs."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from analysis.claims import judge
from analysis.claims.claim import Claim, method_gap
from analysis.claims.claims import CLAIMS
from analysis.claims.judge import (
    claims_json,
    claims_table,
    exact_claim,
    judge_claims,
    sweeps_at_hand,
    write_claims,
)
from analysis.draw.table import to_csv, to_latex, to_markdown
from analysis.paper.effects import none_published
from analysis.paper.papers import PAPERS, paper_of
from analysis.paper.tables import PAPER_TABLES
from analysis.runs.frames import load_runs
from analysis.sweeps.kept import FOLDER

ROOT = Path(__file__).parents[3]
TABLES = pd.read_csv(ROOT / "analysis" / "paper" / "tables.csv")
BY_ID = {claim.id: claim for claim in CLAIMS}


def verdicts(folder, tmp_path):
    judged = judge_claims(sweeps_at_hand(load_runs(folder), kept=tmp_path / "nothing kept"))
    return {entry["id"]: entry for entry in claims_json(judged)}


def claims_named(text):
    """The ids in a text, with those between the ends of "C7-C9"."""
    letters = "".join(paper.letter for paper in PAPERS)
    pairs = re.findall(rf"\b([{letters}])(\d+)(?:-\1(\d+))?", text)
    return [f"{letter}{n}" for letter, a, b in pairs for n in range(int(a), int(b or a) + 1)]


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sweeps_file_names_the_claims_that_it_tests_and_no_others(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert claims_named("\n".join(head)) == [claim.id for claim in CLAIMS if claim.sweep == path.stem]


def test_claims_in_a_row_are_read_as_all_of_them():
    assert claims_named("Claims C7-C9, C18. 4 nodes. Claims D1-D2.") == ["C7", "C8", "C9", "C18", "D1", "D2"]


def test_all_claims_of_the_papers_are_there_in_order():
    entries = claims_json(judge_claims({}))
    counts = {"C": 24, "G": 4, "D": 8}
    assert [entry["id"] for entry in entries] == [
        f"{letter}{n}" for letter, count in counts.items() for n in range(1, count + 1)
    ]
    assert {entry["verdict"] for entry in entries if entry["id"] != "C20"} == {"not run"}
    assert all(
        entry.keys() >= {"id", "statement", "verdict", "estimate", "interval", "seeds"} for entry in entries
    )
    assert all(entry.keys() >= {"seeds_needed", "paper", "published", "sweep"} for entry in entries)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_claims_arms_are_values_of_its_sweep(claim):
    params = yaml.safe_load((ROOT / "sweeps" / f"{claim.sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    for side in ("plus", "minus"):
        for key, values in getattr(claim.effect, "keywords", {}).get(side, {}).items():
            assert set(values) <= set(str(params[key]).split(",")), (claim.id, key)


@pytest.fixture(scope="module")
def kept_sweeps(tmp_path_factory):
    return sweeps_at_hand(load_runs(tmp_path_factory.mktemp("none")))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_kept_results_give_every_claim_of_a_kept_sweep_an_effect(claim, kept_sweeps):
    if claim.sweep not in kept_sweeps:
        assert not (FOLDER / f"{claim.sweep}.jsonl").exists()
        return
    effect = claim.effect(kept_sweeps[claim.sweep][0])
    assert len(effect) >= 3 and effect.notna().all()


def test_paper_values_are_those_of_the_csv():
    cell = TABLES.set_index(["table", "row", "column"])["value"]
    assert BY_ID["C1"].published()["aime2024"] == pytest.approx(
        cell["table2", "easy/only_true", "aime2024"] - cell["table2", "easy/mixed", "aime2024"]
    )
    assert BY_ID["C12"].published()["aime2025"] == pytest.approx(
        cell["table6", "alpha=0.1", "aime2025"] - cell["table6", "alpha=0.2", "aime2025"]
    )
    assert BY_ID["C5"].published()["livecodebench_v5"] == pytest.approx(
        (24.37 + 20.79) / 2 - (19.80 + 13.35 + 19.89 + 14.70) / 4, abs=0.01
    )
    curves = pd.read_csv(ROOT / "analysis" / "paper" / "curves.csv")
    gppo, clip = (
        curves.query("figure == 'figure2' and panel == 'aime2024' and series == @name").sort_values("step")[
            "value"
        ]
        for name in ("gppo", "grpo_clip_higher")
    )
    assert BY_ID["C7"].published()["aime2024"] == pytest.approx(100 * (gppo.iloc[-1] - clip.iloc[-1]))


def test_dapos_rungs_add_what_its_table_says_and_ce_gppos_gaps_are_those_that_its_readme_states():
    steps = [BY_ID[f"D{n}"].published()["aime2024"] for n in range(1, 7)]
    assert steps == [6, 2, 3, 1, 8, 20] and sum(steps[:5]) == steps[5]
    assert BY_ID["G2"].published() == {"1.5B": 2.5, "7B": 3.0}
    assert BY_ID["G1"].published() == {"1.5B": 5.8, "7B": 7.0}


def test_every_paper_has_claims_and_every_table_a_paper():
    assert {claim.paper for claim in CLAIMS} == {*PAPERS}
    assert sorted(name for paper in PAPERS for name in paper.tables) == sorted(PAPER_TABLES)
    with pytest.raises(ValueError, match="X1: no paper of that letter; there are C, G, D"):
        paper_of("X1")


def test_a_papers_name_stands_above_its_claims_and_beside_them_where_a_format_has_no_headings(tmp_path):
    entries = claims_json(judge_claims({}))
    table = write_claims(entries, tmp_path)
    above = {table.rows[place][0]: words for place, words in table.headings.items()}
    assert above == {f"{paper.letter}1": paper.heading for paper in PAPERS}
    for text, form in ((to_markdown(table), "**{}**"), (to_latex(table), "{{\\textit{{{}}}}}")):
        places = [text.index(form.format(paper.heading)) for paper in PAPERS]
        assert places == sorted(places) and places[2] < text.index("D1")
    assert f"DAPO (arXiv 2503.14476),D8,{BY_ID['D8'].statement}" in to_csv(table)
    flat = pd.read_csv(tmp_path / "claims.csv").set_index("id")["paper"]
    assert (flat["C24"], flat["G1"], flat["D1"]) == ("Klear-Reasoner", "CE-GPPO", "DAPO")


@pytest.mark.slow
def test_claims_that_have_not_been_run_change_no_verdict(monkeypatch, tmp_path):
    sweeps = sweeps_at_hand(load_runs(tmp_path))
    everything = {one.claim.id: one.verdict for one in judge_claims(sweeps)}
    ran = [claim for claim in CLAIMS if claim.sweep in sweeps]
    unrun = [Claim(f"D{n}", "a", "nowhere", "b", method_gap("c", "d"), none_published) for n in range(90, 99)]
    monkeypatch.setattr(judge, "CLAIMS", (*unrun, *ran))
    found = {one.claim.id: one.verdict for one in judge_claims(sweeps)}
    assert len(ran) > 20 and all(found[claim.id] == everything[claim.id] for claim in ran)


def test_simulated_runs_get_the_verdict_of_their_effect(write_run, tmp_path):
    level = {"gppo": 0.9, "cispo": 0.6, "clip_higher": 0.6}
    noise = [0.0, 0.02, -0.01, 0.01, -0.02]
    for factor, (method, base) in enumerate(level.items(), start=1):
        for seed in range(5):
            shift = noise[factor * seed % 5]
            write_run(tmp_path / "runs", method, seed, score=lambda step, s=base + shift: s, prompts=200)
    found = verdicts(tmp_path / "runs", tmp_path)
    assert (found["C7"]["verdict"], found["C8"]["verdict"], found["C9"]["verdict"]) == (
        *("supported", "supported", "inconclusive"),
    )
    assert found["C7"]["estimate"] == pytest.approx(0.75 * 0.3, abs=0.01)  # chain8 scores half of chain6
    assert found["C7"]["seeds"] == 5
    assert found["C1"]["verdict"] == "not run"


def test_the_order_turned_round_contradicts(write_run, tmp_path):
    for method, base in {"gppo": 0.3, "cispo": 0.6, "clip_higher": 0.9}.items():
        for seed in range(5):
            noise = {"gppo": 0.02, "cispo": -0.01, "clip_higher": 0.01}[method] * (seed % 3)
            write_run(tmp_path / "runs", method, seed, score=lambda step, s=base + noise: s, prompts=200)
    found = verdicts(tmp_path / "runs", tmp_path)
    assert [found[i]["verdict"] for i in ("C7", "C8", "C9")] == ["contradicted"] * 3


def test_missing_seeds_failed_arms_and_constant_scores_give_no_false_verdict(write_run, tmp_path):
    runs = tmp_path / "runs"
    for seed in range(4):
        write_run(runs, "gppo", seed, score=lambda step: 0.5)
        if seed:
            write_run(runs, "cispo", seed, score=lambda step: 0.5)
    write_run(runs, "clip_higher", 0, status="failed", error="Traceback\nboom")
    found = verdicts(runs, tmp_path)
    assert (found["C8"]["verdict"], found["C8"]["estimate"], found["C8"]["seeds"]) == ("inconclusive", 0.0, 3)
    assert found["C7"]["verdict"] == found["C9"]["verdict"] == "not run"


def test_c20_is_computed_from_the_method_itself():
    assert exact_claim()["verdict"] == "supported" and exact_claim()["estimate"] < 1e-12


def test_the_table_and_the_file_say_the_same(write_sweep, tmp_path):
    judged = judge_claims(sweeps_at_hand(load_runs(write_sweep(tmp_path / "runs")), kept=tmp_path))
    entries = claims_json(judged)
    write_claims(entries, tmp_path)
    assert json.loads((tmp_path / "claims.json").read_text()) == entries
    rows = {row[0]: row for row in claims_table(entries).rows}
    by_id = {entry["id"]: entry for entry in entries}
    assert rows["C7"][2] == by_id["C7"]["verdict"]
    shown = re.match(r"[+\N{MINUS SIGN}]?[\d.]+", rows["C7"][3]).group().replace("\N{MINUS SIGN}", "-")
    assert float(shown) == pytest.approx(by_id["C7"]["estimate"], abs=5e-4)


def test_a_new_claim_is_an_entry_and_comes_out_in_table_and_file(write_run, tmp_path, monkeypatch):
    """Its second file is the sweep's own, whose comment names the claims that it tests."""
    new = Claim(
        "C25",
        "GPPO ends below CISPO",
        "figure2",
        "final avg@n, cispo less gppo",
        method_gap("cispo", "gppo"),
        none_published,
    )
    monkeypatch.setattr(judge, "CLAIMS", (*CLAIMS, new))
    for seed in range(4):
        write_run(tmp_path / "runs", "cispo", seed, score=lambda step, s=seed: 0.5 + 0.02 * step + 0.01 * s)
        write_run(tmp_path / "runs", "gppo", seed, score=lambda step, s=seed: 0.4 + 0.01 * step + 0.02 * s)
    entries = claims_json(judge_claims(sweeps_at_hand(load_runs(tmp_path / "runs"), kept=tmp_path)))
    (place,) = [place for place, entry in enumerate(entries) if entry["id"] == "C25"]
    assert (entries[place - 1]["id"], entries[place]["verdict"], entries[place]["seeds"]) == (
        "C24",
        "supported",
        4,
    )
    table = write_claims(entries, tmp_path)
    assert table.rows[place][:3] == ["C25", "GPPO ends below CISPO", "supported"]
    assert json.loads((tmp_path / "claims.json").read_text())[place]["measured"] == "final avg@n, cispo less gppo"
