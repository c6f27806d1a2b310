"""Judges all claims together from the sweeps at hand, and writes the verdicts as a table and as claims.json.

A sweep's numbers come from the runs at hand where there are finished ones, else from the kept results that are
versioned with the code; the table says which. A sweep that is settled in batches of seeds (settled.json among the
runs) has both, and those of its claims whose seeds grew are judged by evidence that stays valid under looking.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.arms import METHOD_LABELS
from analysis.claims.area import judge_areas
from analysis.claims.claim import NO_DIFFERENCE, Claim
from analysis.claims.claims import CLAIMS
from analysis.claims.mechanism import mechanism_in
from analysis.claims.multiple_testing import NOT_RUN, SUPPORTED, ClaimVerdict, SeedEffects, judge_effects
from analysis.claims.regime import SecondJudgement, judge_where_live
from analysis.claims.second import CAPTION, effects_cell, live_numbers, verdict_numbers
from analysis.claims.settled import Settled, read_settled, settled_sweep
from analysis.draw.cells import number_cell, one_seed_note
from analysis.draw.drawn_once import drawn_once
from analysis.draw.table import DASH, NO_BREAK, Table, to_latex, to_markdown
from analysis.paper.papers import claim_order, paper_of
from analysis.paper.tables import BENCHMARKS
from analysis.runs.frames import RunFrames, sweeps_of
from analysis.sweeps.from_runs import keep_sweep
from analysis.sweeps.kept import (
    FOLDER,
    SWEEPS,
    KeptSweep,
    command_of,
    confounds_words,
    in_plural,
    read_results,
    world_of,
)

RUNS, KEPT, BATCHES = "runs", "kept results", "batches"  # where a sweep's numbers come from
IN_BATCHES = " ‡"  # marks a verdict whose seeds came in batches that were looked at
WITH_CAVEATS = " †"  # marks one whose sweep has confounded runs or arms
LOW, HIGH = 0.2, 0.28


@dataclass(frozen=True)
class JudgedClaim:
    """Holds a claim with its verdict; `source` is RUNS, KEPT, BATCHES, or "" where the sweep hasn't been run.

    world: what the verdict is about; None where the sweep hasn't been run. in_batches: whether its seeds came in
    batches that were looked at, also those of kept results. area: the verdict by the area under the curve, of
    claims about final scores. live: what is found where clipping acts, of claims about clip methods. mechanism:
    what acts in the runs of others about RL, in words, and its share. caveats: what is confounded in the sweep's
    runs, in words.
    """

    claim: Claim
    verdict: ClaimVerdict
    source: str
    world: str | None = None
    in_batches: bool = False
    area: ClaimVerdict | None = None
    live: SecondJudgement | None = None
    mechanism: dict[str, Any] | None = None
    caveats: Sequence[str] = ()


def sweeps_at_hand(
    frames: RunFrames, kept: Path = FOLDER, settled: Settled | None = None
) -> dict[str, tuple[KeptSweep, str]]:
    """Returns every prepared sweep that there are numbers of, with where they come from.

    settled: what is noted of sweeps that grow in batches, by default in the folder of the runs.
    """
    found: dict[str, tuple[KeptSweep, str]] = {}
    settled = read_settled(Path(frames.source)) if settled is None else settled
    for sweep in sorted(path.stem for path in SWEEPS.glob("*.yaml")):
        if sweep in settled:
            one = settled_sweep(frames, sweep, settled[sweep], kept)
            found |= {sweep: (one, BATCHES)} if one else {}
            continue
        finished = [
            record
            for record in frames.records.values()
            if record["status"] == "finished" and sweep in sweeps_of(record)
        ]
        if finished:
            found[sweep] = (keep_sweep(frames, sweep), RUNS)
        elif (kept / f"{sweep}.jsonl").exists():
            found[sweep] = (read_results(kept / f"{sweep}.jsonl"), KEPT)
    return found


def judge_claims(sweeps: Mapping[str, tuple[KeptSweep, str]]) -> list[JudgedClaim]:
    """Judges all claims together, because the correction counts every one that was tested."""
    effects = effects_of_all(sweeps)
    verdicts = judge_effects([*effects.values()])
    areas, live = judge_areas(sweeps), judge_where_live(sweeps)
    return [
        JudgedClaim(
            claim,
            verdict,
            "" if verdict.verdict == NOT_RUN else sweeps[claim.sweep][1],
            None if verdict.verdict == NOT_RUN else world_of(sweeps[claim.sweep][0]),
            effects[claim.id].in_batches,
            areas.get(claim.id),
            live.get(claim.id),
            mechanism_in(claim, sweeps[claim.sweep][0]) if claim.sweep in sweeps else None,
            confounds_words(sweeps[claim.sweep][0]) if claim.sweep in sweeps else [],
        )
        for claim, verdict in zip(CLAIMS, verdicts, strict=True)
    ]


def effects_of_all(sweeps: Mapping[str, tuple[KeptSweep, str]]) -> dict[str, SeedEffects]:
    """Returns the effect of each claim by its id, in the order of the claims."""
    at_hand = {sweep: kept for sweep, (kept, _) in sweeps.items()}
    return {claim.id: claim.seed_effects(at_hand.get(claim.sweep)) for claim in CLAIMS}


@drawn_once  # torch, which only this one claim needs, takes seconds to import
def exact_claim() -> dict[str, Any]:
    """Works out C20, which needs no runs: how far clipped tokens' weights lie from their bound on a grid."""
    import torch

    from klear_lab.rl.clip_methods import make_clip_method

    log_ratio = torch.linspace(-12, 12, 4801, dtype=torch.float64).requires_grad_()
    excess = 0.0
    for advantage, bound in ((-1.0, 1 - LOW), (1.0, 1 + HIGH)):
        output = make_clip_method("gppo")(
            log_ratio, torch.zeros_like(log_ratio), torch.full_like(log_ratio, advantage)
        )
        (weight,) = torch.autograd.grad(output.objective.sum(), log_ratio)
        excess = max(excess, float((weight.abs() - bound)[output.low | output.high].abs().max()))
    return {
        "id": "C20",
        "statement": "a clipped token's gradient weight in GPPO is bounded by 1 - eps_low and 1 + eps_high",
        "verdict": SUPPORTED if excess < 1e-9 else "contradicted",
        "estimate": excess,
        "interval": None,
        "seeds": 0,
        "seeds_needed": None,
        "published": {"Eq. 12": 0.0},
        "sweep": None,
        "measured": "largest distance of a clipped token's weight from its bound, from autograd on a grid",
        "p_value": None,
        "detectable": None,
        "command": "python -m pytest tests/klear_lab/rl/test_clip_methods.py",
        "source": "computed",
        "world": None,
        "in_batches": False,
        "area": None,
        "live": None,
        "mechanism": None,
        "caveats": [],
    }


def claims_json(judged: Sequence[JudgedClaim]) -> list[dict[str, Any]]:
    """Returns what claims.json holds, in the order of the papers and of their claims' numbers."""
    entries = [
        {
            "id": one.claim.id,
            "statement": one.claim.statement,
            "verdict": one.verdict.verdict,
            "estimate": one.verdict.estimate,
            "interval": list(one.verdict.interval) if one.verdict.interval else None,
            "seeds": one.verdict.seeds,
            "seeds_needed": one.verdict.seeds_needed,
            "published": one.claim.published(),
            "sweep": one.claim.sweep,
            "measured": one.claim.measured,
            "p_value": one.verdict.p_value,
            "detectable": one.verdict.detectable,
            "command": command_of(one.claim.sweep),
            "source": one.source,
            "world": one.world,
            "in_batches": one.in_batches,
            "area": verdict_numbers(one.area) if one.area else None,
            "live": live_numbers(one.live) if one.live else None,
            "mechanism": one.mechanism,
            "caveats": [*one.caveats],
        }
        for one in judged
    ]
    named = [{**entry, "paper": paper_of(entry["id"]).name} for entry in (*entries, exact_claim())]
    return sorted(named, key=lambda entry: claim_order(entry["id"]))


def claims_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Prints `claims_json` as a table, the verdict first and numbers after it, under each paper's name."""
    rows = [
        [
            entry["id"],
            entry["statement"],
            entry["verdict"]
            + (IN_BATCHES if entry["in_batches"] else "")
            + (WITH_CAVEATS if entry["caveats"] else ""),
            effects_cell(entry),
            str(entry["seeds"]) if entry["seeds"] else DASH,
            number_cell(entry["detectable"]),
            needed_cell(entry),
            "; ".join(published_cell(key, value) for key, value in entry["published"].items()) or DASH,
            entry["sweep"] or DASH,
        ]
        for entry in entries
    ]
    names = (
        *("Claim", "The paper says", "Here", "Effect", "Seeds", "Detectable"),
        *("Seeds needed", "Published", "Sweep"),
    )
    caption = (
        "Verdicts at a false discovery rate of 5 % over all papers' claims (Benjamini and Hochberg). Effect: "
        "positive where the claim holds, mean over seeds with its uncorrected 95 % t-interval. Detectable: the "
        "effect that these seeds find with 80 % probability at the corrected level; seeds needed: after which "
        "batches would settle the claim, if effect and spread stay as seen. Equal: surely within "
        f"{NO_DIFFERENCE} of avg@n. Published: the paper's own differences, one run an arm, in per cent where "
        "they are scores; of C10 and C17 the value of each arm."
    )
    if any(entry["in_batches"] for entry in entries):
        caption += f"{IN_BATCHES}: seeds came in batches; interval and verdict hold whenever one looks and stops."
    if any(entry["caveats"] for entry in entries):
        caption += (
            f"{WITH_CAVEATS}: runs of the sweep are confounded and left out, or its arms differ in more than is "
            "swept; claims.json says which, and in what."
        )
    caption += one_seed_note(entry["seeds"] for entry in entries)
    caption = f"{caption} {CAPTION}"
    if worlds := worlds_said(entries):
        caption += f" World: {worlds}."
    papers = [paper_of(entry["id"]).heading for entry in entries]
    headings = {place: paper for place, paper in enumerate(papers) if paper not in papers[:place]}
    return Table("claims", caption, [("", name) for name in names], rows, headings=headings, headed="Paper")


def worlds_said(entries: Iterable[Mapping[str, Any]]) -> str:
    """Names the world that verdicts are about, others with the claims that are about them; "" without verdicts."""
    claims_of: dict[str, list[str]] = {}
    for entry in entries:
        if entry["world"]:
            claims_of.setdefault(in_plural(entry["world"]), []).append(entry["id"])
    usual, *others = sorted(claims_of, key=lambda world: -len(claims_of[world])) or [""]
    words = "; ".join(f"{', '.join(claims_of[world])}: {world}" for world in others)
    return f"{usual} ({words})" if words else usual


def published_cell(key: str, value: float) -> str:
    """Prints a number of a paper with its benchmark or arm, as a reader knows it: "AIME 2024 4.78"."""
    name = BENCHMARKS.get(key) or METHOD_LABELS.get(key.removeprefix("grpo_")) or key.replace("_", " ")
    return f"{name}{NO_BREAK}{number_cell(value, 4 if 0 < abs(value) < 0.1 else 2)}"


def needed_cell(entry: Mapping[str, Any]) -> str:
    """Prints after how many seeds batches would settle a claim; a dash where its seeds don't tell."""
    if entry["verdict"] != "inconclusive" or entry["p_value"] is None:
        return DASH
    return str(entry["seeds_needed"] or "over 1000")


def write_claims(entries: Sequence[Mapping[str, Any]], out_dir: Path) -> Table:
    """Writes claims.json, and the table as CSV (full numbers), Markdown and LaTeX; returns the table."""
    table = claims_table(entries)
    (out_dir / "claims.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    (out_dir / "claims.md").write_text(to_markdown(table), encoding="utf-8")
    (out_dir / "claims.tex").write_text(to_latex(table), encoding="utf-8")
    nested = ("published", "area", "live", "mechanism", "caveats")
    flat = pd.DataFrame([{**entry, **{key: json.dumps(entry[key]) for key in nested}} for entry in entries])
    flat.to_csv(out_dir / "claims.csv", index=False)
    return table
