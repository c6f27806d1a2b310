"""Pass rates: a model tries RL prompts, so that the filters can go by how often it was right.

`python -m klear_lab.data --completions 16` lets the config's model write 16 completions for each RL row and notes
how many its verifier passes (paper, section 3.2: the RL filters). An SFT row without a difficulty gets
1 - pass rate if the model tried its prompt (section 3.1: another model judges difficulty). A file keeps the
counts, a chunk of rows at a time, and the same command goes on after the last chunk.
"""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from klear_lab.config import Config
from klear_lab.data.prepare import PreparedData
from klear_lab.identity import content_hash, identity_of
from klear_lab.policy.codec import Codec
from klear_lab.policy.model import choose_device, load_policy, weights_fingerprint
from klear_lab.rows import Row, prompt_text
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.samplers import open_sampler
from klear_lab.sampling.types import Sampler, Sampling
from klear_lab.storage.files import StorageError, replace_file
from klear_lab.storage.run_folder import whole_lines
from klear_lab.storage.stage_cache import cache_folder
from klear_lab.verify.rewards import score_rollout
from klear_lab.verify.verifiers import Verifiers

ROWS_A_CHUNK = 32


def try_out(data: PreparedData, config: Config, data_key: str, completions: int, folder: Path) -> PreparedData:
    """Returns the data with `completions` and `passed` in RL rows and `difficulty` in SFT rows.

    A file in `folder` keeps the counts of finished chunks. A model or a verifier that doesn't work raises its own
    error before any sampling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"tries-{identity(config, data_key, completions)}.jsonl"
    done, passed = read_tries(file)
    rows = data.rl_rows
    chunks = [rows[i : i + ROWS_A_CHUNK] for i in range(0, len(rows), ROWS_A_CHUNK)]
    left = [(i, chunk) for i, chunk in enumerate(chunks) if any(row["id"] not in passed for row in chunk)]
    if left:
        replace_file(file, "".join(done))  # drops a last line that a kill cut short
        policy = load_policy(config.model, choose_device(config.device), config.sft.seed)
        with (
            Verifiers(rows, config.reward, config.reward_workers, config.sandbox) as verifiers,
            closing(open_sampler(config, policy)) as sampler,
        ):
            sampler.load(policy.weights, 0)
            for i, chunk in track(left, "completions", console=Console(stderr=True)):
                seed = f"{config.data.seed}-tries-{i}"
                counts = count_passed(policy.codec, sampler, chunk, config, verifiers, completions, seed)
                found = dict(zip((row["id"] for row in chunk), counts, strict=True))
                with file.open("a", encoding="utf-8") as kept:
                    kept.write("".join(json.dumps({"id": key, "passed": n}) + "\n" for key, n in found.items()))
                passed |= found
    tried = [{**row, "completions": completions, "passed": passed[row["id"]]} for row in rows]
    difficulty = {prompt_text(row): 1 - row["passed"] / completions for row in tried}
    labelled = [with_difficulty(row, difficulty) for row in data.sft_rows]
    return dataclasses.replace(data, rl_rows=tried, sft_rows=labelled)


def read_tries(file: Path) -> tuple[list[str], dict[str, int]]:
    """Reads what is done: whole lines, and how many passed by row id. Raises `StorageError` for a damaged file."""
    try:
        done = whole_lines(file)
        return done, {str(line["id"]): int(line["passed"]) for line in map(json.loads, done)}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StorageError(f"{file}: damaged; delete it, and the same command tries its rows again") from error


def count_passed(
    codec: Codec,
    sampler: Sampler,
    rows: Sequence[Row],
    config: Config,
    verifiers: Verifiers,
    completions: int,
    seed: str,
) -> list[int]:
    """Samples completions as evaluation does and counts each row's right ones; programs run on all test cases."""
    prompts = [codec.encode_prompt(row["prompt"]) for row in rows]
    sampling = dataclasses.replace(Sampling.for_evaluation(config), samples=completions)
    groups = sampler.sample(make_requests(prompts, completions, seed), sampling)
    scores = score_rollout(codec, list(rows), groups, verifiers, draw=None)
    return [sum(score.correct for score in group) for group in scores]


def with_difficulty(row: Row, difficulty: dict[str, float]) -> Row:
    """Fills in the difficulty of a row that has none, from `difficulty` by prompt."""
    return row if row["difficulty"] is not None else {**row, "difficulty": difficulty.get(prompt_text(row))}


def identity(config: Config, data_key: str, completions: int) -> str:
    """Returns a hash of everything that the counts depend on, for the name of their file."""
    parts: dict[str, Any] = {part: identity_of(getattr(config, part)) for part in ("model", "eval", "reward")}
    if sampler := identity_of(config.sampler):  # empty for the reference
        parts["sampler"] = sampler
    weights = weights_fingerprint(config.model, cache_folder(config))
    parts |= {"data": data_key, "weights": weights, "completions": completions}
    return content_hash({**parts, "tokens": config.rl.max_response_tokens, "model seed": config.sft.seed})
