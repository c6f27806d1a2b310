"""The entry point: one config in, one finished run folder out.

python -m klear_lab.run clip_method=gppo,cispo -m
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

# The rest is imported when called: together it takes seconds, in which Ctrl-C must be as quiet as later.
if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(composed: "DictConfig") -> None:
    """Runs one config, alone or as an arm of a sweep."""
    from klear_lab.sweep import run_arm
    from klear_lab.validation import USERS_ERRORS, explain

    try:
        run_arm(composed)
    except USERS_ERRORS as error:
        # Hydra would print all overrides before the message of anything but an exit.
        raise SystemExit(explain(error)) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; Ctrl-C ends it with one line, whenever it comes."""
    try:
        run_command(argv)
    except KeyboardInterrupt as interruption:
        print(
            str(interruption) or "interrupted; the same command goes on from the last checkpoints", file=sys.stderr
        )
        sys.exit(130)


def run_command(argv: Sequence[str] | None) -> None:
    """Runs the command line; prints what is wrong with a config in one message, without a traceback."""
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from klear_lab.command_line import (
        check_flags,
        end_with_the_reader,
        find_main_config,
        only_prints,
        read_overrides,
    )
    from klear_lab.config import register
    from klear_lab.launchers import lost_process
    from klear_lab.validation import USERS_ERRORS, explain

    register()
    parser = get_args_parser()
    parser.usage = "python -m klear_lab.run [key=value ...] [-m] [--cfg job] [--help] [--hydra-help]"
    args = parser.parse_intermixed_args(argv)
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed by Hydra
    try:
        check_flags(args)
        if only_prints(args):
            end_with_the_reader()
        find_main_config(args)
        if not args.shell_completion:
            read_overrides(args.overrides, [args.config_path, args.config_dir])
        version.setbase("1.3")
        _run_hydra(args, parser, run_job, config_path=args.config_path, config_name=args.config_name)
    except USERS_ERRORS as error:
        if traceback_wanted:
            raise
        sys.exit(explain(error))
    except Exception as error:
        line = lost_process(error)
        if traceback_wanted or line is None:
            raise
        sys.exit(line)
    except SystemExit as leaving:
        if traceback_wanted and isinstance(leaving.__cause__, USERS_ERRORS):
            raise leaving.__cause__ from None
        raise


if __name__ == "__main__":
    main()
