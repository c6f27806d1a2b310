"""Entry point: `python -m klear_lab.plan [key=value ...] [-m]` says what a run would take, before it starts.

It composes and checks the config as `python -m klear_lab.run` does. Nothing is loaded or written but `--json`.

Exit status: 0 when the plan was shown, whether it fits or not, 1 for a config that can't be planned, 2 for wrong
options.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from klear_lab.command_line import (
    add_config_flags,
    end_with_the_reader,
    find_main_config,
    opened_hydra,
    read_overrides,
)
from klear_lab.config import ConfigError, register
from klear_lab.validation import USERS_ERRORS, explain, parse

if TYPE_CHECKING:  # --help needn't wait for torch
    from klear_lab.arms import Arm

register()

DESCRIPTION = """\
Says what a run would take: memory by part for each stage, tokens, FLOPs, hours and GPU-hours
on a card, and which keys to change to what where something doesn't fit. Needs no GPU, and of
the model only its config.json. Stages in the cache and finished runs aren't counted."""
EXAMPLES = r"""
examples:
  python -m klear_lab.plan                                       the default run, on this CPU
  python -m klear_lab.plan model=path model.path=Qwen/Qwen3-0.6B scale=gpu
  python -m klear_lab.plan model=path model.path=Qwen/Qwen3-4B scale=gpu --card a100-40gb --price 1.80
  python -m klear_lab.plan model=path model.path=Qwen/Qwen3-0.6B scale=gpu sweep=figure2 -m
  python -m klear_lab.plan rl.steps=500 --like runs/71b3ad03cb97 forecast by what a run took
  python -m klear_lab.plan scale=smoke clip_method=gppo,cispo -m --json plan.json
  python -m klear_lab.plan experiment=klear_reasoner_8b --paper --fullness 0.4 --price 2

A run on a CUDA device refuses by itself what can't fit there; plan=skip lets it try.
Any key of a run may be given: python -m klear_lab.run --help"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; prints what is wrong as one message, without a traceback."""
    options = read_options(argv)
    try:
        show_plan(options)
    except USERS_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(explain(error))
    except KeyboardInterrupt:
        sys.exit(130)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses what the user typed into options of our own and overrides for Hydra."""
    parser = argparse.ArgumentParser(
        prog="python -m klear_lab.plan",
        usage="python -m klear_lab.plan [key=value ...] [-m] [--card NAME] [--like RUN] [--price X] [--paper] "
        "[--json FILE]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for a run")
    parser.add_argument("-m", "--multirun", action="store_true", help="plan the arms of a sweep")
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="h100-80gb, h200, a100-80gb, a100-40gb, rtx4090, l40s or cpu "
        "(default: h100-80gb, for a model from scratch cpu)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="RUN",
        help="folder of a run on such a card; hours are then what its stages took, and not assumed",
    )
    parser.add_argument("--price", type=float, metavar="X", help="of an hour of the card, in any currency")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="also show what each figure and table of the paper takes with this config's model and batches, "
        "and with engine=verl the recipe on 8 to 256 cards",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan there, too")
    parser.add_argument(
        "--prompt-tokens",
        type=int,
        metavar="N",
        help="tokens of a prompt (default: 512, for a model from scratch 64)",
    )
    parser.add_argument(
        "--fullness",
        type=float,
        default=1.0,
        metavar="X",
        help="mean length of responses and SFT rows, as a share of the longest allowed (default: 1)",
    )
    add_config_flags(parser)
    options = parser.parse_intermixed_args(argv)
    if options.prompt_tokens is not None and options.prompt_tokens < 1:
        parser.error(f"--prompt-tokens {options.prompt_tokens}: must be at least 1")
    if not 0 < options.fullness <= 1:
        parser.error(f"--fullness {options.fullness}: must be above 0 and at most 1")
    if options.price is not None and not 0 <= options.price < float("inf"):
        parser.error(f"--price {options.price}: must be at least 0")
    if options.paper and (options.multirun or options.like is not None):
        parser.error("--paper: plans one run by what is assumed, without -m and --like")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")
    return options


def compose_arms(options: argparse.Namespace) -> "list[Arm]":
    """Composes and checks what a run would be. Raises `ConfigError` for a sweep without -m, too."""
    from klear_lab.arms import read_without_launch

    find_main_config(options)
    typed = read_overrides(options.overrides, [options.config_path, options.config_dir])
    with opened_hydra(options) as hydra:
        if not options.multirun:
            check_single([o.input_line or "" for o in typed if o.is_sweep_override()])
        master = hydra.compose_config(options.config_name, options.overrides, RunMode.MULTIRUN)
        if not options.multirun:
            params = OmegaConf.select(master, "hydra.sweeper.params") or {}
            check_single([f"{key}={value}" for key, value in params.items()])
        return read_without_launch(master, hydra.config_loader)


def check_single(swept: Sequence[str]) -> None:
    """Raises `ConfigError` for keys with several values."""
    if swept:
        raise ConfigError(f"{' '.join(swept)}: a sweep needs -m (--multirun) at the end of the command")


def show_plan(options: argparse.Namespace) -> None:
    """Plans all arms, prints the plan, and writes it as JSON where that is asked for."""
    arms = compose_arms(options)

    from rich.console import Console

    from klear_lab.plan.arm_plan import as_json, plan_arm
    from klear_lab.plan.cards import card_of
    from klear_lab.plan.memory import Assumed
    from klear_lab.plan.model_size import read_model_config
    from klear_lab.plan.pace import composed_of, lengths_of, pace_of, paced
    from klear_lab.plan.paper_figures import figure_costs, size_costs
    from klear_lab.plan.show import show
    from klear_lab.plan.show_paper import paper_as_json, show_paper
    from klear_lab.tracking import run_label

    from_scratch = all(arm.config.model.path is None for arm in arms)
    card = card_of(options.card or ("cpu" if from_scratch else "h100-80gb"))
    assumed = Assumed(options.prompt_tokens or (64 if from_scratch else 512), options.fullness)
    pace = None
    if options.like is not None:
        measured = parse(composed_of(options.like))
        assumed = replace(assumed, responses=lengths_of(options.like, measured))
        pace = pace_of(options.like, measured, card, assumed)
    plans = [plan_arm(a.config, a.run_id, run_label(a.values, a.config.seed), card, assumed) for a in arms]
    plans = [paced(plan, pace) for plan in plans]
    figures, sizes = [], []
    if options.paper:
        config = arms[0].config
        model = read_model_config(config.model)
        figures = [*figure_costs(config, model, card, assumed)]
        sizes = [*size_costs(config, model, card, assumed)] if config.engine.name == "verl" else []
    if options.json is not None:
        content: dict[str, Any] = as_json(
            plans, card, assumed, options.price, {} if pace is None else pace.factors
        )
        content |= paper_as_json(figures, sizes)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    end_with_the_reader()
    # Files and pipes have no width of their own; 80 columns would fold every heading.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    show(plans, card, assumed, options.price, pace, console)
    show_paper(figures, sizes, plans[0].gpus, card, options.price, console)


if __name__ == "__main__":
    main()
