"""Entry point: `python -m klear_lab.data [key=value ...]` prepares the data and shows it, without training.

It composes and checks the config as `python -m klear_lab.run` does, and puts the prepared data into the same
stage cache, so that a run with these settings finds it there. It makes no run folder.

Exit status: 0 when the data was shown, 1 for a config that can't be prepared, 2 for wrong options.
"""

import argparse
import dataclasses
import io
import logging.config
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from klear_lab.command_line import (
    CONF,
    add_config_flags,
    end_with_the_reader,
    find_main_config,
    opened_hydra,
    read_overrides,
)
from klear_lab.composing import without_hydra
from klear_lab.config import ConfigError, DataConfig, register
from klear_lab.validation import USERS_ERRORS, explain, parse

register()

GROUPS = ("data_source", "teacher", "difficulty_filter", "correctness", "scale")  # these choose or size the data
DESCRIPTION = """\
Prepares the data of a config and shows it, without training: what each step took, kept and
dropped; counts, lengths, difficulty; sample rows. Writes all rows as Parquet. A run with the
same settings finds the data prepared."""
EXAMPLES = r"""
examples:
  python -m klear_lab.data                             the data of the default config
  python -m klear_lab.data scale=smoke --samples 5     a small set, five rows of each kind
  python -m klear_lab.data difficulty_filter=hard      what a filter drops, and what it leaves
  python -m klear_lab.data correctness=only_true data.sft_budget=500 --out only_true
  python -m klear_lab.data data_source=klear_math sft.steps=0 model=path model.path=Qwen/Qwen3-8B \
      scale=gpu sampler=vllm data.rl_rows=null rl.max_response_tokens=32768 \
      --completions 16 --out tried                     how often a model solves each RL row
  python -m klear_lab.run data_source=file 'data_source.rl.files=[tried/rl.parquet]' ...    filtered by them

Any other key of a run may be given too: python -m klear_lab.run --help
Every key with its range and meaning: klear_lab/config.py"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; prints what is wrong with a config as one message, without a traceback."""
    options = read_options(argv)
    log_settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "job_logging" / "klear_lab.yaml"))
    logging.config.dictConfig(log_settings)
    try:
        look(compose(options), options.samples, options.out, options.completions)
    except USERS_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(explain(error))
    except KeyboardInterrupt:
        print("interrupted; nothing is left half written", file=sys.stderr)
        sys.exit(130)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses what the user typed into options of our own and overrides for Hydra."""
    parser = argparse.ArgumentParser(
        prog="python -m klear_lab.data",
        usage="python -m klear_lab.data [key=value ...] [--samples N] [--completions N] [--out DIR]",
        description=DESCRIPTION,
        epilog=f"{choices()}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for a run")
    parser.add_argument("--samples", type=int, default=2, metavar="N", help="rows of each set (default: 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("data_look"), metavar="DIR", help="for Parquet (default: data_look)"
    )
    parser.add_argument(
        "--completions",
        type=int,
        metavar="N",
        help="let the config's model try each RL row N times, and note how often it is right",
    )
    add_config_flags(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(argv)
    if options.multirun:
        parser.error("-m: one config at a time is looked at; call this once for each")
    if options.completions is not None and options.completions < 1:
        parser.error(f"--completions {options.completions}: must be at least 1")
    if options.samples < 0:
        parser.error(f"--samples {options.samples}: must be at least 0")
    for path in (options.out, *options.out.parents):
        if path.exists() and not path.is_dir():
            parser.error(f"--out {options.out}: {path} is a file; must be a folder, which need not exist yet")
    return options


def choices() -> str:
    """Lists the groups and keys that decide on the data, as the help shows them."""
    lines = ["settings that decide on the data:"]
    for group in GROUPS:
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        lines += listed(f"{group}=", options)
    return "\n".join(lines + listed("data.<key>=", [field.name for field in dataclasses.fields(DataConfig)]))


def listed(label: str, words: Sequence[str]) -> list[str]:
    """Writes words behind a label, in as many lines as they need."""
    return textwrap.wrap(", ".join(words), 92, initial_indent=f"  {label:<20}", subsequent_indent=" " * 22)


def compose(options: argparse.Namespace) -> DictConfig:
    """Composes what `python -m klear_lab.run` would. Raises `ConfigError` for a sweep, which has no one config."""
    find_main_config(options)
    for override in read_overrides(options.overrides, [options.config_path, options.config_dir]):
        if override.key_or_group == "sweep" and override.value() is not None:
            raise ConfigError(
                f"{override.input_line}: one config at a time is looked at; give the settings of one of its arms"
            )
    with opened_hydra(options) as hydra:
        composed = hydra.compose_config(options.config_name, options.overrides, RunMode.RUN)
        return without_hydra(composed)


def look(composed: DictConfig, samples: int, out: Path, completions: int | None = None) -> None:
    """Prepares or finds the data of a config, writes it as Parquet, and prints what it is."""
    config = parse(composed)

    # Imported here, so that --help and wrong settings don't wait for the models' libraries.
    from rich.console import Console

    from klear_lab.data.look import WIDTH, show
    from klear_lab.data.prepare import load_prepared
    from klear_lab.data.stage import prepare_data_stage
    from klear_lab.data.write_parquet import write_parquet
    from klear_lab.storage.interruption import Stop
    from klear_lab.storage.stage_cache import reading

    stage = prepare_data_stage(config, Stop())
    with reading(stage.folder):
        data = load_prepared(stage.folder)
    writing: AbstractContextManager[Any] = nullcontext()
    if completions is not None:
        from filelock import FileLock

        from klear_lab.data.try_out import try_out

        data = try_out(data, config, stage.key, completions, out)
        writing = FileLock(out / ".lock")  # processes that share the tries end together
    with writing:
        files = write_parquet(data, out)
    end_with_the_reader()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rows may hold characters that the terminal's encoding lacks
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width)
    show(data, samples, console)
    made = "found prepared" if stage.from_cache else f"prepared in {stage.seconds:.1f} s"
    console.print(f"\nThe data was {made}; a run with these settings finds it in its cache.")
    console.print("Written, with steps.json beside them:")
    for file in files:
        console.print(f"  {file}", soft_wrap=True, markup=False)  # a path in one piece can be copied


if __name__ == "__main__":
    main()
