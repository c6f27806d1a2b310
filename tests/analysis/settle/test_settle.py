"""Settling: batches until a verdict or a budget, the same verdict after a kill, and the report agrees."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.claims.claims import CLAIMS
from analysis.claims.judge import (
    BATCHES,
    KEPT,
    claims_json,
    claims_table,
    judge_claims,
    needed_cell,
    sweeps_at_hand,
)
from analysis.claims.regime import live_settings
from analysis.claims.settled import NAME, read_settled
from analysis.draw.table import DASH
from analysis.errors import RunFolderError
from analysis.runs.frames import load_runs
from analysis.settle import loop
from analysis.settle.first_look import same_runs
from analysis.settle.live import targets_where_live
from analysis.settle.loop import Budget, Settling
from analysis.settle.outlook import Outlook
from analysis.settle.pairs import pairs_at_hand
from analysis.settle.targets import recorded_arm, runs_of_two_arms, targets_of, two_arms
from analysis.sweeps.kept import FOLDER, KeptSweep, command_of, read_results, value_order, write_results

ROOT = Path(__file__).parents[3]
ARMS = ("gppo", "clip_higher")
BY_ID = {claim.id: claim for claim in CLAIMS}


class Runner:
    """Writes the run folders that a command asks for, as finished runs of known scores."""

    def __init__(self, write_run, gap, spread=0.02, fails=(), stops_at=None, sweep=None):
        self.write_run, self.gap, self.spread = write_run, gap, spread
        self.named = {"sweep": sweep} if sweep else {}
        self.fails, self.stops_at, self.seeds, self.written = fails, stops_at, [], 0

    def __call__(self, command):
        asked = dict(word.split("=", 1) for word in command if "=" in word)
        runs, seeds = Path(asked["runs_dir"]), [int(word) for word in asked["seed"].split(",")]
        self.seeds += [seeds]
        for method in asked["clip_method"].removeprefix("choice(").removesuffix(")").split(","):
            for seed in seeds:
                if not (runs / f"{method}-{seed}").exists():
                    self.write(runs, method, seed)

    def write(self, runs, method, seed):
        if self.stops_at is not None and self.written == self.stops_at:
            self.stops_at = None
            raise KeyboardInterrupt
        self.written += 1
        if (method, seed) in self.fails:
            self.write_run(runs, method, seed, status="failed", error="Traceback\nboom", evaluated=(0, 4))
            return
        noise = float(np.random.default_rng([seed, method == "gppo"]).normal(0, self.spread))
        level = 0.5 + noise + (self.gap if method == "gppo" else 0)
        self.write_run(runs, method, seed, score=lambda step: level, prompts=200, **self.named)


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """A function that settles claims with a runner, and returns where they ended with the call and its lines."""

    def call(runner, names=("C7",), seeds=30, batch=3, hours=None, margin=None):
        monkeypatch.setattr(loop, "run_command", runner)
        lines = []
        results = tmp_path / "none kept"
        settling = Settling(
            targets_of(names, False),
            tmp_path / "runs",
            results,
            Budget(seeds, hours, batch, 2),
            margin,
            lines.append,
        )
        return settling.run(), settling, lines

    return call


@pytest.fixture
def five_seeds(tmp_path):
    """The first look of figure2 as kept results: five seeds of three arms, of today's settings."""
    kept = read_results(FOLDER / "figure2.jsonl")
    runs = kept.first_look.runs if kept.first_look else kept.runs
    about = {key: value for key, value in kept.about.items() if key != "first_look"}
    write_results(KeptSweep(about, runs), tmp_path / "kept")
    return tmp_path / "kept"


def verdicts_of(sweeps):
    return {entry["id"]: entry for entry in claims_json(judge_claims(sweeps))}


def verdict_in(sweeps, claim="C7"):
    return verdicts_of(sweeps)[claim]


def empty(folder):
    (folder / "empty").mkdir(parents=True)
    return folder / "empty"


def verdict_in_report(folder, claim):
    return verdict_in(sweeps_at_hand(load_runs(folder), folder / "none"), claim)


def test_a_claim_gets_batches_until_it_is_settled_and_the_report_says_the_same(write_run, settle, tmp_path):
    runner = Runner(write_run, gap=0.1)
    (one,), settling, lines = settle(runner)
    assert one.verdict == "supported" and not settling.ended
    assert runner.seeds == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and len(one.effects) == 9
    found = verdict_in_report(tmp_path / "runs", "C7")
    assert (found["verdict"], found["seeds"], found["source"]) == ("supported", 9, BATCHES)
    assert found["interval"] == pytest.approx(one.interval)  # the only claim: both are at 5 %
    assert "seeds 6, 7, 8 ..." in "\n".join(lines) and lines[-1].endswith(": supported")
    assert any("boundary" in line for line in lines)


def test_the_order_turned_round_contradicts_and_an_effect_within_the_margin_asked_for_is_equal(write_run, settle):
    assert settle(Runner(write_run, gap=-0.1))[0][0].verdict == "contradicted"


def test_claims_that_batches_gave_no_seeds_keep_the_verdict_of_their_first_look(
    write_run, tmp_path, monkeypatch, five_seeds
):
    runs, none = tmp_path / "runs", empty(tmp_path)
    before = verdicts_of(sweeps_at_hand(load_runs(none), five_seeds))
    runner = Runner(write_run, gap=0.1)
    monkeypatch.setattr(loop, "run_command", runner)
    names = ["C7", "C10", "C18"]
    settling = Settling(targets_of(names, False), runs, five_seeds, Budget(8, None, 3, 2), None, lambda line: None)
    found = {one.target.claim.id: one.verdict for one in settling.run()}
    assert found.keys() == {*names} and runner.seeds[0] == [5, 6, 7]
    assert [*read_settled(runs)] == ["figure2"]
    after = verdicts_of(sweeps_at_hand(load_runs(runs), five_seeds))
    assert after["C7"]["seeds"] == 8 and after["C7"]["in_batches"]
    for claim in ("C10", "C18"):  # they need CISPO's runs too, which no batch has made
        assert found[claim] == before[claim]["verdict"] == after[claim]["verdict"] in ("supported", "contradicted")
        assert not after[claim]["in_batches"] and after[claim]["interval"] == before[claim]["interval"]


def test_a_claim_that_the_budget_cant_settle_waits_for_those_it_can_however_quick_its_runs(tmp_path, monkeypatch):
    far, near = (
        Outlook(target, "inconclusive", pd.Series(range(5), dtype=float), 0.05, (-1, 1), 1.0, to_go, minutes)
        for target, to_go, minutes in zip(targets_of(["C7", "C8"], False), (26, 25), (0.1, 9.0), strict=True)
    )
    settling = Settling(
        [far.target, near.target], tmp_path, tmp_path, Budget(30, None, 1, 1), say=lambda line: None
    )
    monkeypatch.setattr(settling, "begin", lambda: None)
    monkeypatch.setattr(settling, "look", lambda: [far, near])
    added = []

    def add(one):
        added.append(one.target.claim.id)
        if len(added) == 3:
            raise KeyboardInterrupt
        return [99]

    monkeypatch.setattr(settling, "add", add)
    with pytest.raises(KeyboardInterrupt):
        settling.run()
    assert added == ["C8", "C8", "C7"]  # two batches in a row added nothing to C8


def test_a_claim_that_is_decided_gets_no_batch(write_run, tmp_path, monkeypatch, five_seeds):
    runner = Runner(write_run, gap=0.1)
    monkeypatch.setattr(loop, "run_command", runner)
    settling = Settling(targets_of(["C10"], False), tmp_path / "runs", five_seeds, Budget(30, None, 3, 2))
    (one,) = settling.run()
    assert one.verdict in ("supported", "contradicted") and not settling.ended and not runner.seeds


def test_batches_of_other_settings_are_refused(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "run_command", Runner(write_run, gap=0.0))
    where = (tmp_path / "runs", tmp_path / "none kept", Budget(3, None, 3, 2), None, lambda line: None)
    Settling(targets_of(["C7"], False, ["logger=none"]), *where).run()
    with pytest.raises(RunFolderError, match=r"figure2: its batches were run with none .* not with rl.steps=25"):
        Settling(targets_of(["C7"], False, ["rl.steps=25"]), *where).run()
    Settling(targets_of(["C7"], False, ["progress=off"]), *where).run()


def test_kept_runs_that_counted_and_have_other_settings_today_are_refused(
    write_run, tmp_path, monkeypatch, five_seeds
):
    monkeypatch.setattr(loop, "run_command", Runner(write_run, gap=0.1))
    arguments = (tmp_path / "runs", five_seeds, Budget(8, None, 3, 2), None, lambda line: None)
    Settling(targets_of(["C7"], False), *arguments).run()
    monkeypatch.setattr(loop, "same_runs", lambda *_: ([], 15))
    with pytest.raises(RunFolderError, match="don't have today's settings any more"):
        Settling(targets_of(["C7"], False), *arguments).run()


def test_arms_closer_than_the_margin_are_equal_and_the_report_says_the_same(write_run, settle, tmp_path):
    (one,), _, _ = settle(Runner(write_run, gap=0.0, spread=0.01))
    assert one.verdict == "equal" == verdict_in_report(tmp_path / "runs", "C7")["verdict"]
    assert one.effects.abs().mean() < 0.03


def test_a_budget_of_seeds_ends_it_without_a_verdict(write_run, settle):
    (one,), settling, lines = settle(Runner(write_run, gap=0.0), seeds=8, batch=5)
    more = f"; --seeds {8 + one.to_go} may settle it, if its effect stays as it looks" if one.to_go else ""
    assert (one.verdict, len(one.effects)) == ("inconclusive", 8)
    assert settling.ended == {"C7": f"--seeds 8 are spent{more}"} and "to go" in lines[-1]


def test_a_budget_of_hours_starts_no_batch_that_would_not_end_within_it(write_run, settle):
    runner = Runner(write_run, gap=0.0)
    (one,), settling, _ = settle(runner, hours=0.08)  # a run takes two minutes, 3 seeds of 2 arms 6 with 2 jobs
    assert (len(one.effects), len(runner.seeds)) == (3, 1) and "--hours 0.08" in settling.ended["C7"]


@pytest.mark.slow
@pytest.mark.parametrize("stops_at", [1, 7, 15])
def test_a_command_killed_in_a_batch_goes_on_to_the_same_verdict(write_run, settle, tmp_path, stops_at):
    runner = Runner(write_run, gap=0.05, spread=0.03, stops_at=stops_at)
    with pytest.raises(KeyboardInterrupt):
        settle(runner)
    (after,), _, _ = settle(runner)
    killed = {path.name for path in (tmp_path / "runs").iterdir()}
    for path in (tmp_path / "runs").iterdir():
        path.rename(tmp_path / f"old-{path.name}")
    (whole,), _, _ = settle(Runner(write_run, gap=0.05, spread=0.03))
    assert after.verdict == whole.verdict == "supported"
    assert killed == {path.name for path in (tmp_path / "runs").iterdir()}
    pd.testing.assert_series_equal(after.effects, whole.effects)


def test_a_seed_with_a_failed_arm_is_left_out_and_named_and_others_take_its_place(write_run, settle):
    runner = Runner(write_run, gap=0.1, fails={("gppo", 1)})
    (one,), _, lines = settle(runner)
    assert one.verdict == "supported" and 1 not in one.effects.index
    assert "C7: left out, an arm isn't finished or is confounded: seeds 1" in lines


def test_a_seed_whose_run_is_confounded_is_left_out_and_another_takes_its_place(write_run, settle, tmp_path):
    runner = Runner(write_run, gap=0.1)
    write_run(tmp_path / "runs", "gppo", 1, run_id="gppo-1", settings={"rl": {"alpha": 0.7}}, prompts=200)
    (one,), _, lines = settle(runner)
    assert one.verdict == "supported" and 1 not in one.effects.index
    assert "C7: left out, an arm isn't finished or is confounded: seeds 1" in lines


def test_an_arm_that_always_fails_ends_the_claim_and_not_the_machine(write_run, settle):
    runner = Runner(write_run, gap=0.1, fails={("gppo", seed) for seed in range(100)})
    (one,), settling, _ = settle(runner)
    assert one.verdict == "not run" and len(runner.seeds) == 2 and "no pair of arms" in settling.ended["C7"]


def test_seeds_that_runs_lack_in_the_middle_are_filled_first(write_run, settle, tmp_path):
    runner = Runner(write_run, gap=0.1)
    for method, seed in (("gppo", 0), ("clip_higher", 0), ("gppo", 2), ("clip_higher", 2), ("gppo", 1)):
        runner.write(tmp_path / "runs", method, seed)
    settle(runner)
    assert runner.seeds[0] == [1, 3, 4]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_claims_commands_run_its_arms_and_no_others(claim):
    (target,) = targets_of([claim.id], False, ["scale=smoke"])
    (command,) = target.commands([5, 6], "somewhere", 2)
    chosen = dict(word.split("=", 1) for word in command if "=" in word)
    order = value_order(claim.sweep)
    assert (chosen["sweep"], chosen["seed"], chosen["scale"]) == (claim.sweep, "5,6", "smoke")
    count = int(np.prod([len(chosen.get(key, ",".join(order[key])).split(",")) for key in order if key != "seed"]))
    assert count == target.arms and all(set(chosen[key].split(",")) <= set(order[key]) for key in target.selected)
    if claim.id == "C7":
        assert (chosen["clip_method"], target.arms) == ("clip_higher,gppo", 2)


def test_names_are_claims_sweeps_or_two_arms_and_nothing_else():
    assert [one.claim.id for one in targets_of(["figure2"], False)] == ["C7", "C8", "C9", "C10", "C18"]
    assert len(targets_of([], True)) == len(CLAIMS)
    for names, words in (
        (["C77"], "did you mean C7"),
        ([], "name a claim"),
        (["clip_method=gppo"], "two arms"),
        (["clip_method=gppo", "rl.alpha=0"], "the same keys"),
    ):
        with pytest.raises(RunFolderError, match=words):
            targets_of(names, False)


def test_kept_runs_count_as_the_first_look_only_where_settings_are_todays(tmp_path):
    kept, others = same_runs("figure3", FOLDER)
    assert (len(kept), others) == (10, 0)
    assert same_runs("figure3", FOLDER, ["rl.steps=25"]) == ([], 10)
    assert same_runs("figure3", tmp_path) == ([], 0)


def test_kept_runs_and_batches_are_judged_together(write_run, tmp_path, monkeypatch, five_seeds):
    runner, runs = Runner(write_run, gap=0.1), tmp_path / "runs"
    monkeypatch.setattr(loop, "run_command", runner)
    budget = Budget(8, None, 2, 2)
    (one,) = Settling(targets_of(["C7"], False), runs, five_seeds, budget, None, lambda line: None).run()
    assert runner.seeds[0] == [5, 6] and {0, 1, 2, 3, 4, 5, 6} <= {*one.effects.index}
    assert len(read_settled(runs)["figure2"]["kept"]) == 15
    kept, source = sweeps_at_hand(load_runs(runs), five_seeds)["figure2"]
    assert source == BATCHES and {run["seed"] for run in kept.runs} >= {0, 5}


def test_what_is_kept_of_batches_has_the_first_look_and_is_judged_as_they_were(
    write_run, tmp_path, monkeypatch, capsys, five_seeds
):
    results, runs = five_seeds, tmp_path / "runs"
    monkeypatch.setattr(loop, "run_command", Runner(write_run, gap=0.1))
    Settling(targets_of(["C7"], False), runs, results, Budget(8, None, 2, 2), None, lambda line: None).run()
    at_hand = verdict_in(sweeps_at_hand(load_runs(runs), results))
    assert main(["keep", "figure2", "--runs", str(runs), "--out", str(results)]) == 0
    kept, source = sweeps_at_hand(load_runs(empty(tmp_path)), results)["figure2"]
    assert source == KEPT and len(kept.first_look.runs) == 15 and len(kept.runs) == 15 + 2 * 3
    assert kept.about["command"] == [command_of("figure2"), "python -m klear_lab.settle figure2"]
    alone = verdict_in({"figure2": (kept, KEPT)})
    assert alone["in_batches"] and {**alone, "source": BATCHES} == at_hand
    (row,) = [row for row in claims_table([alone]).rows if row[0] == "C7"]
    assert row[2].endswith("‡")

    (results / "figure2.jsonl").unlink()
    assert main(["keep", "figure2", "--runs", str(runs), "--out", str(results)]) == 1
    assert "lacks 15 kept runs that settled.json counts" in capsys.readouterr().err


@pytest.mark.slow
def test_claims_about_clip_methods_are_settled_where_clipping_acts(tmp_path, monkeypatch):
    runs = empty(tmp_path)
    sweeps = sweeps_at_hand(load_runs(runs))
    settings = live_settings(sweeps)
    live = [one for one in targets_of([], True, ["logger=none"]) if settings.get(one.claim.id)]
    targets = {one.claim.id: one for one in targets_where_live(live, runs, FOLDER)}
    assert targets.keys() >= {"C7", "C8", "C10", "C19", "G2"}
    for name, target in targets.items():
        setting = settings[name]
        here = target.claim.effect(sweeps[target.claim.sweep][0])
        pd.testing.assert_series_equal(here, BY_ID[name].effect(setting.kept))
        chosen = dict(word.split("=", 1) for word in target.overrides[0])
        assert (
            math.prod(len(chosen[key].split(",")) for key in value_order(setting.sweep) if key != "seed")
            == target.arms
        )
        assert chosen["sweep"] == setting.sweep and chosen["logger"] == "none"
    assert (
        "clip_method=cispo,gppo" in targets["C8"].overrides[0]
        or "clip_method=gppo,cispo" in targets["C8"].overrides[0]
    )

    commands = []
    monkeypatch.setattr(loop, "run_command", commands.append)
    settling = Settling([targets["C19"]], runs, FOLDER, Budget(30, None, 2, 2), None, lambda line: None)
    (one,) = settling.run()
    found = verdict_in(sweeps, "C19")["live"]
    assert one.verdict == found["verdict"] and len(one.effects) == found["seeds"] and one.minutes > 0
    assert bool(commands) == (one.verdict == "inconclusive")


def test_what_cant_be_settled_where_clipping_acts_is_refused(tmp_path):
    for name, words in (("C5", "not about clip methods"), ("C7", "first make one: .* sweep=clip_live")):
        with pytest.raises(RunFolderError, match=words):
            targets_where_live(targets_of([name], False), empty(tmp_path / name), tmp_path / "none kept")


def test_a_damaged_note_of_settled_sweeps_is_one_line(tmp_path, capsys):
    (tmp_path / NAME).write_text('{"figure2": 3}')
    assert main(["claims", "--runs", str(tmp_path)]) == 1
    assert "doesn't say which sweeps are settled" in capsys.readouterr().err


def test_an_arm_of_a_group_that_no_config_names_is_what_the_run_recorded():
    config = {"clip_method": {"name": "gppo"}, "rl": {"alpha": 0.1}}
    assert recorded_arm({"recipe": "sft"}, config, ["recipe", "clip_method"]) == {
        "recipe": "sft",
        "clip_method": "gppo",
    }
    assert recorded_arm({}, config, ["rl.alpha"]) == {"rl.alpha": "0.1"}
    assert two_arms(["recipe=sft_rl", "recipe=sft"], []).overrides[0][0] == "recipe=choice(sft_rl)"


def test_next_ranks_open_claims_by_the_time_until_they_are_settled(tmp_path, capsys):
    assert main(["next", "--runs", str(tmp_path), "--jobs", "2"]) == 0
    text = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    times = [float(row[6]) for row in rows[1:] if row[6] != DASH]
    assert len(times) > 5 and times == sorted(times)
    assert text.startswith(f"An hour would settle {rows[1][0]} best") and rows[1][7] in text.splitlines()[0]
    for row in rows[1:]:
        in_all = int(row[3]) + int(row[4]) if row[4].isdigit() else 0
        more = f" --seeds {in_all}" if in_all > 30 else ""  # as many as a call adds
        assert row[7] == f"python -m klear_lab.settle {row[0]}{more}"


def test_seeds_of_next_and_seeds_to_go_are_the_seeds_needed_of_the_claims_table(write_run, tmp_path, capsys):
    for method, seed in itertools.product((*ARMS, "cispo"), range(3)):
        level = 0.6 + (0.05 * seed if method == "gppo" else 0.0)  # C7 has some spread, C9 none
        write_run(tmp_path, method, seed, score=lambda step, s=level: s, prompts=200)
    assert main(["next", "--runs", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    rows = {cells[0]: cells for line in lines for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]}
    sweeps = sweeps_at_hand(load_runs(tmp_path))
    compared = 0
    for entry in claims_json(judge_claims(sweeps)):
        if entry["verdict"] == "inconclusive":
            to_go = rows[entry["id"]][4]
            in_all = str(entry["seeds"] + int(to_go)) if to_go.isdigit() else to_go
            assert needed_cell(entry) == in_all, entry["id"]
            compared += 1
    assert compared > 5 and rows["C7"][4].isdigit() and rows["C9"][3:5] == ["3", DASH]


def settle_two_arms(tmp_path, monkeypatch, runner, *words):
    monkeypatch.setattr(loop, "run_command", runner)
    names = [f"clip_method={method}" for method in ARMS]
    return main(["settle", *names, "--jobs", "2", "--batch", "4", "--runs", str(tmp_path), *words])


def test_two_arms_of_ones_own_have_their_verdict_in_the_report(write_run, tmp_path, monkeypatch, capsys):
    runner = Runner(
        write_run, gap=0.2, sweep=two_arms([f"clip_method={method}" for method in ARMS], []).claim.sweep
    )
    assert settle_two_arms(tmp_path, monkeypatch, runner) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "arms, clip_method=gppo ends above clip_method=clip_higher: supported"
    ((pair, one),) = pairs_at_hand(load_runs(tmp_path))
    assert (pair.arms, one.verdict) == (("clip_method=gppo", "clip_method=clip_higher"), "supported")
    assert main(["settled_arms", "--runs", str(tmp_path)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| clip_method")]
    seeds = sum(map(len, runner.seeds)) // 2
    assert "| supported | +0.1" in row
    assert f"| {seeds} |" in row
    low, high = one.interval
    assert 0 < low < one.effects.mean() < high


def test_another_margin_than_that_of_the_first_batch_is_refused(write_run, tmp_path, monkeypatch, capsys):
    runner = Runner(
        write_run, gap=0.0, sweep=two_arms([f"clip_method={method}" for method in ARMS], []).claim.sweep
    )
    settle_two_arms(tmp_path, monkeypatch, runner, "--seeds", "4", "--margin", "0.1")
    batches = len(runner.seeds)
    assert settle_two_arms(tmp_path, monkeypatch, runner, "--seeds", "12") == 1
    assert "settled with --margin 0.1" in capsys.readouterr().err and len(runner.seeds) == batches


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["clip_method=nope", "clip_method=gppo"], [], "Could not find 'clip_method/nope'"),
        (["clip_method=gppo", "clip_method=nope"], [], "Could not find 'clip_method/nope'"),
        (["rl.alpha=0.1", "rl.alpha=-1"], [], "rl.alpha=-1"),
        (["rl.alpha=0.1", "rl.alpha=0"], ["model=path"], "model.path=null"),
        (["C7"], ["scale=nope"], "Could not find 'scale/nope'"),
        (["C6", "C7"], ["data_source=file"], "data_source"),
    ],
)
def test_nothing_is_run_or_noted_where_an_arm_cannot_run(tmp_path, monkeypatch, capsys, names, settings, said):
    ran = []
    monkeypatch.setattr(loop, "run_command", ran.append)
    runs = tmp_path / "runs"
    settled = ["settle", *names, "--runs", str(runs), "--results", str(empty(tmp_path)), "--seeds", "2"]
    assert main([*settled, *(["--with", *settings] if settings else [])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and line.endswith("; nothing was run")
    assert not ran and not [*runs.glob("*.json")]


@pytest.mark.parametrize("text", ["3", "[3]", '[{"arms": ["a=1"], "settings": [], "margin": null}]', "[{}]", "{"])
def test_a_damaged_note_of_settled_arms_is_one_line(tmp_path, capsys, text):
    (tmp_path / "settled_arms.json").write_text(text)
    assert main(["claims", "--runs", str(tmp_path)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error:") and "doesn't say which arms are settled" in line


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_command_killed_in_a_batch_goes_on_and_ends_where_an_unkilled_one_does(tmp_path):
    one, other = tmp_path / "killed", tmp_path / "whole"
    killed = subprocess.Popen(two_arms_command(one), cwd=ROOT, start_new_session=True)
    wait_for(
        lambda: len([*one.glob("*/run.json")]) > 2
    )  # the first arm's runs are there, one of the second's began
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    for folder in (one, other):
        done = subprocess.run(two_arms_command(folder), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
        assert "--seeds 2 are spent" in done.stdout
    records = [json.loads(path.read_text()) for path in one.glob("*/run.json")]
    assert sorted((record["seed"], record["status"]) for record in records) == [
        *[(0, "finished")] * 2,
        *[(1, "finished")] * 2,
    ]
    target = two_arms(["clip_method=gppo", "clip_method=cispo"], ["scale=smoke", "logger=none"])
    effects = [target.claim.effect(runs_of_two_arms(load_runs(folder), target)) for folder in (one, other)]
    pd.testing.assert_series_equal(*effects)


def two_arms_command(runs):
    words = ["--with", "scale=smoke", "logger=none", "--runs", str(runs)]
    words += ["--jobs", "2", "--batch", "2", "--seeds", "2"]
    return [sys.executable, "-m", "klear_lab.settle", "clip_method=gppo", "clip_method=cispo", *words]


def wait_for(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
