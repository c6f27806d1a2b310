"""Pass rates: a model tries RL prompts, so that the filters can go by how often it was right.

`python -m klear_lab.data --completions 16` lets the config's model write 16 completions for each RL row and notes
how many its verifier passes (paper, section 3.2.1: the RL filters). An SFT row without a difficulty gets
1 - pass rate if the model tried its prompt (section 3.1: another model judges difficulty).

The rows are tried in chunks, each of which leaves a file of counts. The same command goes on where a killed one
stopped, and started several times, on one machine or on many that see the folder, it shares the chunks out. What a
row's completions are depends on the row alone, so the counts are the same however many processes made them.
"""

import dataclasses
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from klear_lab.config import Config, ConfigError
from klear_lab.data.lengths import longest_prompt
from klear_lab.data.prepare import PreparedData
from klear_lab.data.table import MappedRows
from klear_lab.identity import content_hash, identity_of
from klear_lab.policy.codec import Codec
from klear_lab.policy.model import choose_device, load_policy
from klear_lab.rows import Row, prompt_text
from klear_lab.sampling.draws import make_request
from klear_lab.sampling.samplers import open_sampler
from klear_lab.sampling.types import Sampler, Sampling
from klear_lab.storage.files import StorageError, replace_file
from klear_lab.storage.fingerprints import weights_fingerprint
from klear_lab.storage.shared_work import take_parts
from klear_lab.storage.stage_cache import cache_folder
from klear_lab.verify.rewards import score_rollout
from klear_lab.verify.verifiers import Verifiers

log = logging.getLogger(__name__)

RESPONSES_A_CHUNK = 2048  # so many that a sampler's slots are seldom empty, so few that little is lost


def try_out(data: PreparedData, config: Config, data_key: str, completions: int, folder: Path) -> PreparedData:
    """Returns the data with `completions` and `passed` in RL rows and `difficulty` in SFT rows.

    Rows with prompts longer than data.max_prompt_tokens are not tried, and stay as they are. A folder in `folder`
    keeps the counts of finished chunks. A model or a verifier that doesn't work raises its own error before any
    sampling. Raises `ConfigError` for rows that share an id, as those that older code prepared may.
    """
    check_ids(data.rl_rows, cache_folder(config) / f"data-{data_key}")
    counts = folder / f"tries-{identity(config, data_key, completions)}"
    counts.mkdir(parents=True, exist_ok=True)
    rows, size = data.rl_rows, max(1, RESPONSES_A_CHUNK // completions)
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    files = [counts / f"{i * size:06d}.json" for i in range(len(chunks))]
    parts = take_parts(files)
    if (first := next(parts, None)) is not None:
        count_chunks(itertools.chain([first], parts), chunks, files, config, completions)
    passed = dict(itertools.chain.from_iterable(read_counts(file).items() for file in files))
    tried = [with_passes(row, completions, passed[row["id"]]) for row in rows]
    if untried := sum(n is None for n in passed.values()):
        log.warning("%d of %d RL rows were not tried: their prompts are too long", untried, len(tried))
    difficulty = {prompt_text(row): 1 - row["passed"] / n for row in tried if (n := row.get("completions"))}
    return dataclasses.replace(data, rl_rows=tried, sft_rows=MappedRows(data.sft_rows, FillIn(difficulty)))


def check_ids(rows: Sequence[Row], folder: Path) -> None:
    """Raises `ConfigError` where several rows have one id, by which counts are kept; `folder` holds the rows."""
    row_id, count = max(Counter(row["id"] for row in rows).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ConfigError(
            f"{folder}: {count} RL rows have the id {row_id!r}, so whose completions passed can't be told; they "
            "are of older code: delete this folder, and the same command prepares them anew"
        )


def count_chunks(
    numbers: Iterable[int], chunks: list[list[Row]], files: list[Path], config: Config, completions: int
) -> None:
    """Tries the chunks of these numbers, and writes their files of counts."""
    policy = load_policy(config.model, choose_device(config.device), config.sft.seed)
    rows = [row for chunk in chunks for row in chunk]
    bar = Progress(*Progress.get_default_columns(), console=Console(stderr=True))
    with (
        Verifiers(rows, config.reward, config.reward_workers, config.sandbox) as verifiers,
        closing(open_sampler(config, policy)) as sampler,
        bar,
    ):
        sampler.load(policy.weights, 0)
        shown = bar.add_task("completions", total=len(chunks))
        for number in numbers:
            bar.update(shown, completed=sum(file.exists() for file in files))  # other processes write some
            passed = count_passed(policy.codec, sampler, chunks[number], config, verifiers, completions)
            counts = dict(zip((row["id"] for row in chunks[number]), passed, strict=True))
            replace_file(files[number], json.dumps(counts))
        bar.update(shown, completed=len(chunks))


def read_counts(file: Path) -> dict[str, int | None]:
    """Reads how many passed by row id. Raises `StorageError` for a damaged file."""
    try:
        return {str(key): None if n is None else int(n) for key, n in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise StorageError(f"{file}: damaged; delete it, and the same command tries its rows again") from error


def count_passed(
    codec: Codec, sampler: Sampler, rows: Sequence[Row], config: Config, verifiers: Verifiers, completions: int
) -> list[int | None]:
    """Samples completions as evaluation does and counts each row's right ones; programs run on all test cases.

    A row whose prompt is too long has None.
    """
    longest = longest_prompt(config)
    prompts = [codec.encode_prompt(row["prompt"]) for row in rows]
    short = [i for i, ids in enumerate(prompts) if longest is None or len(ids) <= longest]
    sampling = dataclasses.replace(Sampling.for_evaluation(config), samples=completions)
    requests = [make_request(prompts[i], completions, f"{config.data.seed}-tries-{rows[i]['id']}") for i in short]
    groups = sampler.sample(requests, sampling) if requests else []
    scores = score_rollout(codec, [rows[i] for i in short], groups, verifiers, draw=None)
    found = dict(zip(short, (sum(score.correct for score in group) for group in scores), strict=True))
    return [found.get(i) for i in range(len(rows))]


def with_passes(row: Row, completions: int, passed: int | None) -> Row:
    """Notes how many completions of a row passed; one that wasn't tried stays as it is."""
    return row if passed is None else {**row, "completions": completions, "passed": passed}


@dataclass(frozen=True)
class FillIn:
    """Fills in the difficulty of rows that have none, from `difficulty` by prompt."""

    difficulty: dict[str, float]

    def __call__(self, row: Row) -> Row:
        """Returns a row with a difficulty, or None in its place where nobody has tried the prompt."""
        known = row["difficulty"] is not None
        return row if known else {**row, "difficulty": self.difficulty.get(prompt_text(row))}


def identity(config: Config, data_key: str, completions: int) -> str:
    """Returns a hash of everything that the counts depend on, for the name of their file."""
    parts: dict[str, Any] = {part: identity_of(getattr(config, part)) for part in ("model", "eval", "reward")}
    if sampler := identity_of(config.sampler):  # empty for the reference
        parts["sampler"] = sampler
    weights = weights_fingerprint(config.model, cache_folder(config))
    parts |= {"longest prompt": longest_prompt(config), "data": data_key, "weights": weights}
    parts |= {"completions": completions, "draws": "by row"}  # before, they were by place in a chunk
    return content_hash({**parts, "tokens": config.rl.max_response_tokens, "model seed": config.sft.seed})
