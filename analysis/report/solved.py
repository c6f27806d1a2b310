"""Packs which prompts each drawn run solves, of benchmarks and of training, with their responses.

A run solves a prompt if more than half of its responses are right. Benchmarks are counted from all verdicts
(evaluations.parquet). Of prompts that some runs of a seed solve and others do not, responses (answers.jsonl)
are packed: the page sets both arms' side by side, as it does with sampled prompts of training (samples.jsonl).
What doesn't fit the byte budgets is left out: of benchmarks the last prompts, of training the earliest steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import RunFolderError
from analysis.report.explorer import embedded
from analysis.report.samples import ANSWER_TYPES, SAMPLE_TYPES, read_texts, shortened
from analysis.runs.damage import DamagedRunsError
from analysis.runs.frames import right_at_last

BUDGET = 300_000  # bytes of JSON, for benchmarks and for training each
NONE_SOLVED: dict[str, Any] = {"runs": [], "prompts": {}, "left_out": ""}


def solved_data(runs: pd.DataFrame, samples: Mapping[str, int], budget: int = BUDGET) -> dict[str, Any]:
    """Returns `runs`, a mapping for each, `prompts` of benchmarks, and `left_out`, a sentence on what had no room.

    A run has arm, seed, samples (n of avg@n), right (by benchmark: right samples of each prompt at the last
    evaluated step, prompts by id), kept (by benchmark and place of the prompt: a pair of right and text for each
    response) and answers (the same by step and prompt). `prompts` has texts by benchmark and place. runs: run_id,
    arm, seed, folder. samples: n by run_id. Raises DamagedRunsError for files that can't be read.
    """
    packed: list[dict[str, Any]] = []
    texts, damaged = [], {}
    for run in runs.sort_values(["seed", "arm"]).to_dict("records"):
        folder = Path(run["folder"])
        try:
            right = right_at_last(folder)
            answers = answers_by_step(read_texts(folder / "samples.jsonl", SAMPLE_TYPES))
            texts.append(placed(read_texts(folder / "answers.jsonl", ANSWER_TYPES), right))
        except RunFolderError as error:
            damaged[run["run_id"]] = str(error)
            continue
        own = {"arm": run["arm"], "seed": int(run["seed"]), "samples": samples.get(run["run_id"], 0)}
        counts = {name: [*by_prompt.values()] for name, by_prompt in right.items()}
        packed.append({**own, "right": counts, "kept": {}, "answers": answers})
    if damaged:
        raise DamagedRunsError(damaged)
    prompts, unshown = keep_responses(packed, texts, budget)
    steps = keep_latest(packed, budget)
    words = [f"responses to {unshown} prompts of benchmarks"] * (unshown > 0)
    words += [f"samples of the earliest {steps} steps"] * (steps > 0)
    return {
        "runs": packed,
        "prompts": prompts,
        "left_out": f"There was no room on this page for {' and '.join(words)}." if words else "",
    }


# A benchmark, the place of a prompt among those of it, and a line of answers.jsonl.
Placed = tuple[str, int, dict[str, Any]]


def placed(lines: list[dict[str, Any]], right: Mapping[str, Mapping[str, int]]) -> list[Placed]:
    """Finds the place of each answer's prompt; an answer to a prompt without verdicts is left out."""
    places = {(name, prompt): place for name, own in right.items() for place, prompt in enumerate(own)}
    keyed = [((line["benchmark"], line["prompt_id"]), line) for line in lines]
    return [(key[0], places[key], line) for key, line in keyed if key in places]


def keep_responses(
    packed: list[dict[str, Any]], texts: list[list[Placed]], budget: int
) -> tuple[dict[str, dict[int, str]], int]:
    """Gives runs their responses to prompts that some runs of one seed solve and others don't.

    Prompts come in the order of their benchmarks and ids, as long as the budget in bytes lasts. Returns their
    texts, and how many prompts had no room.
    """
    found: dict[tuple[str, int], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for run, answers in zip(packed, texts, strict=True):
        for name, place, line in answers:
            found.setdefault((name, place), []).append((run, line))
    prompts: dict[str, dict[int, str]] = {}
    used, unshown = 0, 0
    for (name, place), own_answers in sorted(found.items(), key=lambda item: item[0]):
        disputed = disputed_seeds(packed, name, place)
        shown = [(run, line) for run, line in own_answers if run["seed"] in disputed]
        if not shown:
            continue
        used += sum(len(embedded({"": shortened(line["response"])})) for _, line in shown)
        if used > budget:
            unshown += 1
            continue
        prompts.setdefault(name, {})[place] = shortened(shown[0][1]["prompt"])
        for run, line in shown:
            own = run["kept"].setdefault(name, {}).setdefault(place, [])
            own.append([int(line["correct"]), shortened(line["response"])])
    return prompts, unshown


def disputed_seeds(packed: list[dict[str, Any]], benchmark: str, place: int) -> set[int]:
    """Returns the seeds of which some runs solve a prompt and others don't."""
    verdicts: dict[int, set[bool]] = {}
    for run in packed:
        right = run["right"].get(benchmark, [])
        if place < len(right):
            verdicts.setdefault(run["seed"], set()).add(2 * right[place] > run["samples"])
    return {seed for seed, both in verdicts.items() if len(both) > 1}


def answers_by_step(lines: list[dict[str, Any]]) -> dict[int, dict[str, list[list[Any]]]]:
    """Returns right and text of each response, by step and prompt."""
    found: dict[int, dict[str, list[list[Any]]]] = {}
    for line in lines:
        own = found.setdefault(line["step"], {}).setdefault(shortened(line["prompt"]), [])
        own.append([int(line["correct"]), shortened(line["response"])])
    return found


def keep_latest(packed: list[dict[str, Any]], budget: int) -> int:
    """Takes away the answers of steps that don't fit, earlier steps first; returns how many steps that were."""
    steps = sorted({step for run in packed for step in run["answers"]}, reverse=True)
    used, kept = 0, 0
    for step in steps:
        used += sum(len(embedded(run["answers"].get(step, {}))) for run in packed)
        if used > budget:
            break
        kept += 1
    for step in steps[kept:]:
        for run in packed:
            run["answers"].pop(step, None)
    return len(steps) - kept


def has_pairs(data: Mapping[str, Any]) -> bool:
    """Tells whether two arms of one seed can be set side by side."""
    seeds = [run["seed"] for run in data["runs"] if run["right"] or run["answers"]]
    return len(seeds) > len(set(seeds))
