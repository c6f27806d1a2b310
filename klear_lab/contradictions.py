"""Names what a typed config may not say: values out of their ranges, and pairs of keys that can't both hold."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from klear_lab.config import Config, ConfigError, ModelConfig, RLConfig
from klear_lab.data.columns import checked_columns
from klear_lab.data_source_config import (
    DatasetSourceConfig,
    JoinedSourceConfig,
    ReasoningGymConfig,
    RowSetConfig,
    is_absent,
    row_sets,
)
from klear_lab.engines.trl import checks as trl_checks
from klear_lab.unread_keys import all_unread_keys

# Of transformers' `apply_chat_template`, which we set or which change what it returns.
OWN_ARGUMENTS = {
    *("conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "padding"),
    *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    "tokenizer_kwargs",
}


def out_of_range(config: Any, prefix: str = "") -> list[str]:
    """Returns one line for each value outside what its field allows."""
    found = []
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            found += out_of_range(value, f"{key}.")
        elif any_infinite(value) and not (f.metadata.get("may be infinite") and value == math.inf):
            found.append(f"{key}={value}: must be a finite number")
        elif "test" in f.metadata and value is not None and not f.metadata["test"](value):
            found.append(f"{key}={value}: must be {f.metadata['must be']}")
    return found


def any_infinite(value: Any) -> bool:
    """Whether a value, or one in a list, is infinite or not a number."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(number, float) and not math.isfinite(number) for number in values)


def contradictions(config: Config) -> list[str]:
    """Returns one line for each pair of keys that can't both hold."""
    model, found = config.model, data_contradictions(config)
    found += rl_contradictions(config)
    found += model_contradictions(model)
    if config.sft.batches == "epochs" and config.sft.length_curriculum > 0:
        found.append(
            f"sft.length_curriculum={config.sft.length_curriculum}: lets only short rows in at first; "
            "must be 0 with sft.batches=epochs"
        )
    found += all_unread_keys(config)
    found += [*trl_checks.contradictions_of(config), *engine_problems(config)]
    if model.name == "path" and model.path is None:
        found.append("model.path=null: must be a folder or a hub name with model=path, e.g. Qwen/Qwen3-0.6B")
    if model.path is None and model.heads > 0 and model.hidden_size % (2 * model.heads):
        found.append(
            f"model.heads={model.heads}: model.hidden_size={model.hidden_size} must be an even multiple of it, "
            "since positions turn the numbers of a head in pairs"
        )
    if config.reward.correct <= config.reward.wrong:
        found.append(f"reward.correct={config.reward.correct}: must be above reward.wrong={config.reward.wrong}")
    if config.difficulty_filter.minimum > config.difficulty_filter.maximum:
        found.append("difficulty_filter.minimum: must be at most difficulty_filter.maximum")
    return found + method_problems(config.clip_method, config.engine.name)


def method_problems(settings: dict[str, Any], engine: str) -> list[str]:
    """Returns what is wrong with the clip method; one of a person's own is tried out on a few tokens."""
    from klear_lab.rl.clip_methods import (
        OWN,
        make_clip_method,
        try_out,
    )  # not above: --help needn't wait for torch

    try:
        method = make_clip_method(**settings)
    except (TypeError, ValueError) as error:
        return [f"clip_method.{error}"]
    if settings["name"] == OWN:
        try:
            try_out(method)
        except ValueError as error:
            return [f"clip_method.function={settings['function']}: {error}"]
    if method.needs_statistics and engine != "local":
        return [
            f"clip_method={settings['name']}: engine={engine} can't follow it, since it never has the whole "
            "mini-batch at hand; set engine=local"
        ]
    return []


def model_contradictions(model: ModelConfig) -> list[str]:
    """Returns the contradictions between a model's path and what only some models have."""
    found = []
    if model.revision is not None and (model.path is None or Path(model.path).is_dir()):
        where = "a model from scratch" if model.path is None else f"the folder model.path={model.path}"
        found.append(f"model.revision={model.revision}: only a hub name has one; must be null with {where}")
    if model.positions is not None and model.path is None:
        found.append(
            f"model.positions={model.positions}: a model from scratch has model.max_positions; must be null"
        )
    if model.template_arguments and model.path is None:
        found.append(
            f"model.template_arguments={model.template_arguments}: must be null for a model from scratch, whose "
            "template takes none"
        )
    found += [
        f"model.template_arguments.{key}: is no argument of the template; leave it out"
        for key in (model.template_arguments if isinstance(model.template_arguments, dict) else ())
        if key in OWN_ARGUMENTS
    ]
    return found


def engine_problems(config: Config) -> list[str]:
    """Returns a line for each key that the engine can't honour, and for each that is another engine's."""
    from klear_lab.engines.verl.refusals import refusals, unread_keys  # as above

    if config.engine.name == "verl":
        return refusals(config)
    found = unread_keys(config)
    if config.dry_run:
        found.append(
            f"dry_run=true: engine={config.engine.name} starts no other program, so there is nothing to write; "
            "`python -m klear_lab.plan` says what the run would take"
        )
    return found


def rl_contradictions(config: Config) -> list[str]:
    """Returns the contradictions within RL, in each of its phases."""
    from klear_lab.rl.phases import phases_of  # not above: as in `contradictions`

    try:
        phases = phases_of(config.rl)
    except ConfigError as error:
        return [str(error)]
    found = []
    for number, phase in enumerate(phases):
        rl, prefix = phase.settings, f"rl.phases[{number}]." if config.rl.phases else "rl."
        if config.rl.phases:
            found += out_of_range(rl, prefix)
        found += [f"{prefix}{line}" for line in (*rollout_problems(rl, prefix), *mismatch_problems(rl))]
        if rl.token_mean == "micro_batch" and rl.micro_batch_tokens is not None and config.engine.name == "local":
            found.append(
                f"{prefix}micro_batch_tokens={rl.micro_batch_tokens}: must be null with {prefix}token_mean="
                f"micro_batch, which cuts by {prefix}micro_batch_sequences alone, since the cut changes the loss"
            )
        if rl.alpha > 0 and not config.reward.uses_verifier:
            found.append(
                f"{prefix}alpha={rl.alpha}: the SFT term needs to know which responses are correct, and "
                f"reward={config.reward.name} checks none; must be 0 with this reward"
            )
    return found


def rollout_problems(rl: RLConfig, prefix: str) -> Iterator[str]:
    """Yields what is wrong between the keys that say what a step samples and trains on."""
    key = "prompts_per_step" if rl.train_prompts is None else "train_prompts"
    trained = rl.trained_prompts
    if rl.mini_batch_prompts > 0 and trained % rl.mini_batch_prompts:
        one_of = ", ".join(str(n) for n in range(1, trained + 1) if trained % n == 0)
        yield (
            f"mini_batch_prompts={rl.mini_batch_prompts}: must divide {prefix}{key}={trained}, so one of {one_of}"
        )
    if rl.train_prompts is not None and rl.train_prompts > (most := rl.prompts_per_step * rl.max_rollouts):
        yield (
            f"train_prompts={rl.train_prompts}: must be at most the {most} prompts that a step samples, "
            f"{prefix}prompts_per_step={rl.prompts_per_step} times {prefix}max_rollouts={rl.max_rollouts}"
        )
    if rl.max_rollouts > 1 and rl.train_prompts is None:
        yield f"max_rollouts={rl.max_rollouts}: must be 1, or {prefix}train_prompts a number of groups to wait for"
    if not rl.overlong_counts and not rl.mask_overlong:
        yield f"overlong_counts=false: truncated responses are only left out with {prefix}mask_overlong=true"
    if rl.drop_equal != "reward" and not rl.drop_zero_advantage:
        yield f"drop_equal={rl.drop_equal}: no group is dropped with {prefix}drop_zero_advantage=false"
    if rl.overlong_buffer is None and rl.overlong_penalty != 1:
        yield f"overlong_penalty={rl.overlong_penalty}: acts within {prefix}overlong_buffer, which is null"
    if rl.overlong_buffer is not None and rl.overlong_buffer > rl.max_response_tokens:
        limit = rl.max_response_tokens
        yield f"overlong_buffer={rl.overlong_buffer}: must be at most rl.max_response_tokens={limit}"
    if rl.group_std != "population" and not rl.divide_by_std:
        yield f"group_std={rl.group_std}: nothing is divided by it with {prefix}divide_by_std=false"
    if rl.warmup_unit == "rollout" and rl.warmup_updates == 0:
        yield f"warmup_unit=rollout: there is no warm-up with {prefix}warmup_updates=0"


def mismatch_problems(rl: RLConfig) -> list[str]:
    """Returns what is wrong with the bounds of the correction for mismatch."""
    name, low, high = rl.mismatch_correction, rl.mismatch_low, rl.mismatch_high
    if name == "none":
        bounds = {"mismatch_low": low, "mismatch_high": high}
        return [
            f"{key}={bound}: must be null with rl.mismatch_correction=none, which has no bounds"
            for key, bound in bounds.items()
            if bound is not None
        ]
    if name == "tis" and low is not None:
        return [f"mismatch_low={low}: must be null with rl.mismatch_correction=tis, which has no lower bound"]
    from klear_lab.rl.mismatch import Correction  # not above: as in `contradictions`

    both = Correction.of(rl)
    if both.low >= both.high:
        return [
            f"mismatch_low={low}, mismatch_high={high}: the bounds of rl.mismatch_correction={name} would be "
            f"{both.low:g} and {both.high:g}, which leaves no token; the lower must be below the upper"
        ]
    return []


def data_contradictions(config: Config) -> list[str]:
    """Returns the contradictions between a data source and how its rows are used."""
    source, data = config.data_source, config.data
    if isinstance(source, DatasetSourceConfig | JoinedSourceConfig):
        parts = {"": source} if isinstance(source, DatasetSourceConfig) else named_parts(source)
        found = [line for key, kind, rows in row_sets(source) for line in set_problems(key, kind, rows)]
        for prefix, part in parts.items():
            found += [x for name, rows in part.benchmarks.items() for x in benchmark_problems(prefix, name, rows)]
        which = "data_source" if isinstance(source, DatasetSourceConfig) else "each of data_source.sources"
        absent = {
            key: f"{which}.{key} names neither files nor a repository"
            for key in ("sft", "rl")
            if all(is_absent(getattr(part, key)) for part in parts.values())
        }
        if data.top_sources is not None and not source.quality_order and "sft" not in absent:
            found.append(
                f"data.top_sources={data.top_sources}: nobody says which sources are best; set "
                "data_source.quality_order=[best,second,...], or data.top_sources=null"
            )
    else:
        found = [
            f"data.{key}=null: must be a number with data_source={source.name}, whose problems are made to order"
            for key in ("sft_rows", "rl_rows", "benchmark_rows")
            if getattr(data, key) is None
        ]
        absent = {}
    if isinstance(source, ReasoningGymConfig):
        absent = {"sft": f"data_source={source.name} has no traces of a teacher"}
        if data.decontaminate_ngram is not None:
            found.append(
                f"data.decontaminate_ngram={data.decontaminate_ngram}: must be null with data_source="
                f"{source.name}: all problems of a task share their wording, and a benchmark's are left out anyway"
            )
    for key, why in absent.items():
        steps = getattr(config, key).steps
        if steps > 0:
            found.append(
                f"{key}.steps={steps}: {why}, so there are no {key} rows; name some, or set {key}.steps=0"
            )
    if "sft" in absent:
        found += [f"{line}, because {absent['sft']}" for line in choices_among_sft_rows(config)]
    return found


def choices_among_sft_rows(config: Config) -> Iterator[str]:
    """Yields what is said of SFT rows, for a source that has none."""
    difficulty = config.difficulty_filter
    for key in ("sft_budget", "top_sources"):
        if (value := getattr(config.data, key)) is not None:
            yield f"data.{key}={value}: must be null"
    if (difficulty.minimum, difficulty.maximum) != (0, 1):
        yield f"difficulty_filter={difficulty.name}: must be overall"
    if config.correctness.only_true:
        yield f"correctness={config.correctness.name}: must be mixed"


def set_problems(key: str, kind: str, rows: RowSetConfig) -> list[str]:
    """Returns what is wrong with a set, before any of its files is looked for."""
    found = []
    if rows.repository is None:
        for name in ("config", "split", "revision"):
            if (value := getattr(rows, name)) is not None:
                found.append(
                    f"data_source.{key}.{name}={value}: only a repository has one; must be null with "
                    f"data_source.{key}.repository=null"
                )
    elif rows.split is None:
        found.append(f"data_source.{key}.split=null: must be one of the repository's, e.g. train")
    try:
        checked_columns(rows.columns, kind, f"data_source.{key}.columns")
    except ConfigError as error:
        found += [f"data_source.{key}.{line}" for line in str(error).splitlines()]
    return found


def named_parts(source: JoinedSourceConfig) -> dict[str, DatasetSourceConfig]:
    """Returns the sources that are joined, by what stands before their sets' keys."""
    return {f"sources.{name}.": part for name, part in source.sources.items()}


def benchmark_problems(prefix: str, name: str, rows: RowSetConfig) -> list[str]:
    """Returns what is wrong with a benchmark's set, or its name, which becomes a file's."""
    found = []
    if name in ("sft", "rl") or not re.fullmatch(r"\w[\w.-]*", name):
        found.append(
            f"data_source.{prefix}benchmarks.{name}: must be a name of letters, digits, _, - and ., and neither "
            "sft nor rl"
        )
    if is_absent(rows):
        found.append(
            f"data_source.{prefix}benchmarks.{name}: names neither files nor a repository; name some, or leave it "
            f"out with ~data_source.{prefix}benchmarks.{name}"
        )
    return found
