"""Sets sample responses of the drawn arms side by side for the page: the same prompts, at the last step with some.

A run keeps them in samples.jsonl (klear_lab/rl/samples.py). Runs from wandb have none here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.draw.cells import number_cell
from analysis.errors import RunFolderError
from analysis.runs.damage import DamagedRunsError
from analysis.runs.files import REPAIR

MOST_PROMPTS = 4
LONGEST = 1500  # characters of a text; the middle of a longer one is left out
NUMBER, TEXT, SWITCH = (int, float), (str,), (bool,)
TEXT_TYPES = {"step": (int,), "prompt": TEXT, "response": TEXT, "correct": SWITCH}
SAMPLE_TYPES = {**TEXT_TYPES, "reward": NUMBER, "reason": TEXT, "length": (int,), "truncated": SWITCH}
ANSWER_TYPES = {**TEXT_TYPES, "benchmark": TEXT, "prompt_id": TEXT}


def samples_section(runs: pd.DataFrame) -> dict[str, Any] | None:
    """Returns seed, step and prompts of the section, None where no run has samples.

    The seed is the lowest that has any. The step is the last that all its arms with samples have, and the prompts
    are those that they share there; without such a step each arm shows its own last one, and `step` is None. A
    prompt has its text and an answer of each arm: arm, response and what is known of it.

    runs: run_id, arm, seed and folder of each run. Raises DamagedRunsError for samples that can't be read.
    """
    damaged: dict[str, str] = {}
    for seed in sorted({int(seed) for seed in runs["seed"]}):
        own = runs[runs["seed"] == seed].sort_values("arm")
        found: dict[str, list[dict[str, Any]]] = {}
        for run in own.to_dict("records"):
            try:
                lines = read_texts(Path(run["folder"]) / "samples.jsonl", SAMPLE_TYPES)
            except RunFolderError as error:
                damaged[run["run_id"]] = str(error)
                continue
            if lines:
                found[run["arm"]] = lines
        if damaged:
            raise DamagedRunsError(damaged)
        if found:
            step = last_common(found)
            return {"seed": seed, "step": step, "prompts": side_by_side(found, step)}
    return None


def last_common(found: dict[str, list[dict[str, Any]]]) -> int | None:
    """Returns the last step that all arms have samples of, None without one."""
    steps = set.intersection(*({line["step"] for line in lines} for lines in found.values()))
    return max(steps, default=None)


def side_by_side(found: dict[str, list[dict[str, Any]]], step: int | None) -> list[dict[str, Any]]:
    """Returns the prompts that all arms have at a step, or all prompts where they share none, with the answers."""
    chosen = {arm: at_step(lines, step) for arm, lines in found.items()}
    prompts = list(dict.fromkeys(prompt for own in chosen.values() for prompt in own))
    shared = [prompt for prompt in prompts if all(prompt in own for own in chosen.values())]
    return [
        {
            "text": shortened(prompt),
            "answers": [
                {
                    **own[prompt],
                    "arm": arm,
                    "reward": number_cell(own[prompt]["reward"], 2),
                    "response": shortened(own[prompt]["response"]),
                }
                for arm, own in chosen.items()
                if prompt in own
            ],
        }
        for prompt in (shared or prompts)[:MOST_PROMPTS]
    ]


def at_step(lines: list[dict[str, Any]], step: int | None) -> dict[str, dict[str, Any]]:
    """Returns the first sample of each prompt at a step, or at the last one where it is None."""
    wanted = max(line["step"] for line in lines) if step is None else step
    return {line["prompt"]: line for line in reversed(lines) if line["step"] == wanted}


def shortened(text: str) -> str:
    """Leaves the middle of a long text out, and says how much."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def read_texts(path: Path, types: Mapping[str, tuple[type, ...]]) -> list[dict[str, Any]]:
    """Reads a run's samples.jsonl or answers.jsonl, [] where there is none; skips a last line cut in half.

    Raises RunFolderError for any other line that doesn't have these keys with values of these types.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text.split("\n")[:-1]
        lines: list[dict[str, Any]] = json.loads(f"[{','.join(whole)}]")  # 0.4 of the time of one by one
        if len(lines) != len(whole):
            raise ValueError("several values on one line")
        for name, kinds in types.items():
            if wrong := [line[name] for line in lines if type(line[name]) not in kinds]:
                raise ValueError(f"{name} is {wrong[0]!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{path}: not JSON lines of {path.stem} ({error!r}). {REPAIR}") from error
    return lines
