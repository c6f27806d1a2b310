"""Prompts that a model can't take: too long ones leave, and what leaves no room for a response is refused.

It happens before anything trains, and not while data are prepared, since only a model's own tokenizer knows how
long a prompt is, and prepared data serve every model. Rows that leave are counted as other steps' are. The stage
cache keeps the lengths: a hundred thousand prompts take a minute or two.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from klear_lab.config import Config, ConfigError
from klear_lab.data.prepare import Pipeline, PreparedData
from klear_lab.data.tokens import codec_fingerprint, encode_prompts
from klear_lab.policy.codec import Codec
from klear_lab.policy.model import load_codec
from klear_lab.rows import Row
from klear_lab.storage.files import replace_file
from klear_lab.storage.interruption import Stop
from klear_lab.storage.stage_cache import cache_folder, cached, reading

log = logging.getLogger(__name__)

VERSION = 1  # of the lengths; raise it when the same prompts and tokenizer give others
PROMPT_TOKENS = 4096  # data.max_prompt_tokens of models from a folder or the hub


def fit_prompts(data: PreparedData, config: Config, data_key: str, stop: Stop) -> PreparedData:
    """Returns the data without RL rows and benchmark problems of prompts longer than data.max_prompt_tokens.

    `data_key` names the data in the stage cache. Raises `ConfigError` where a set has no row left, where the chat
    template can't write a row, and where the longest prompt and a response together are longer than the model can
    read. A model from scratch knows no length beyond which it fails, so only a limit that was set counts for it.
    """
    bound = longest_prompt(config)
    if bound is None:
        return data
    codec, limit = load_codec(config.model)
    fitted, longest = {}, {}
    trains = config.rl.steps > 0 or bool(config.rl.phases)
    sets = {"rl": data.rl_rows if trains else [], **data.benchmarks}
    lengths = prompt_lengths(sets, codec, data_key, cache_folder(config), stop)
    for name, rows in sets.items():
        fitted[name], longest[name] = keep_short(name, rows, lengths[name], bound)
    if config.model.path is not None and limit is not None:
        check_room(config, longest, limit)
    benchmarks = {name: [*fitted[name].rows] for name in data.benchmarks}
    rl_rows = [*fitted["rl"].rows] if trains else data.rl_rows
    steps = [*data.steps, *(step for pipeline in fitted.values() for step in pipeline.steps)]
    return dataclasses.replace(data, rl_rows=rl_rows, benchmarks=benchmarks, steps=steps)


def longest_prompt(config: Config) -> int | None:
    """Returns the tokens that a prompt may have; None for a model from scratch without a limit of its own."""
    bound = config.data.max_prompt_tokens
    return PROMPT_TOKENS if bound is None and config.model.path is not None else bound


def prompt_lengths(
    sets: Mapping[str, Sequence[Row]], codec: Codec, data_key: str, cache_dir: Path, stop: Stop
) -> dict[str, list[int]]:
    """Returns the tokens of each prompt of each set, counted now or found in the stage cache.

    Raises `ConfigError` for a row that the chat template can't write.
    """
    numbers = {name: len(rows) for name, rows in sets.items()}
    content = {"version": VERSION, "data": data_key, "codec": codec_fingerprint(codec), "rows": numbers}

    def make(partial: Path) -> None:
        counted = {name: [len(ids) for ids in encode_prompts(codec, rows, name)] for name, rows in sets.items()}
        replace_file(partial / "lengths.json", json.dumps(counted))

    stage = cached("lengths", content, cache_dir, make, stop)
    with reading(stage.folder):
        found: dict[str, list[int]] = json.loads((stage.folder / "lengths.json").read_text())
    return found


def keep_short(name: str, rows: list[Row], lengths: list[int], bound: int) -> tuple[Pipeline, int]:
    """Drops the rows of a set whose prompts are too long, and counts them; returns also the longest that is left.

    Raises `ConfigError` where no row is left.
    """
    pipeline, step = Pipeline(name, rows), f"data.max_prompt_tokens={bound}"
    if rows:
        why = f"prompt of more than {bound} tokens"
        pipeline.drop(step, [why if length > bound else None for length in lengths])
    if dropped := len(rows) - len(pipeline.rows):
        what = "RL rows leave" if name == "rl" else f"problems of {name} leave, and avg@n is of the others"
        log.warning("%s: %d of %d %s", step, dropped, len(rows), what)
    return pipeline, max((length for length in lengths if length <= bound), default=0)


def check_room(config: Config, longest: dict[str, int], limit: int) -> None:
    """Raises `ConfigError` where the longest prompt of a set and a response are longer than the model can read."""
    rl, budget = config.rl.max_response_tokens, config.eval.response_budget
    for name, prompt in longest.items():
        response = rl if name == "rl" else round(budget * rl)
        if prompt and prompt + response > limit:
            key = f"rl.max_response_tokens={rl}" if response == rl else f"eval.response_budget={budget}"
            raise ConfigError(
                f"{key}: responses of {response} tokens, behind the longest prompt of {name} with {prompt}, need "
                f"more than the {limit} positions of model.path={config.model.path}; leave at most "
                f"{max(0, limit - prompt)} to a response, or lower data.max_prompt_tokens"
            )


def check_positions(longest: int, max_tokens: int, limit: int | None, path: str | None) -> None:
    """Raises `ConfigError` for SFT rows that are longer than a model from a folder or the hub can read."""
    if path is not None and limit is not None and longest > limit:
        raise ConfigError(
            f"sft.max_tokens={max_tokens}: there are rows of up to {longest} tokens, and model.path={path} has "
            f"only {limit} positions; must be at most {limit}"
        )
