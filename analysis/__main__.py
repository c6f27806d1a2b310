"""Writes tables, figures and a page, or runs one of the commands: `python -m analysis [--runs DIR] [--out DIR]`.

Exit status: 0 when the report was written (also without any runs, and without damaged ones, which are named), 1
for what can't be read, compared or written, 2 for wrong arguments, 130 after Ctrl-C, 141 for output that nobody
reads.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

# Each is imported when called: together they take seconds, in which Ctrl-C must be as quiet as later.
COMMANDS = {
    "compare": "analysis.commands.compare",
    "curves": "analysis.commands.curves",
    "keep": "analysis.commands.keep",
    "next": "analysis.commands.next",
    "settle": "analysis.commands.settle",
    "wandb": "analysis.commands.wandb_push",
}
REPORT, ITEM = "analysis.commands.report", "analysis.commands.item"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name; returns the exit status.

    What a person can put right is one line on stderr, and so is Ctrl-C; a closed pipe is silent.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = run_command(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can be caught
        return status
    except KeyboardInterrupt:
        print("interrupted: nothing was left half written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # what is still buffered would be written, and fail, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(
            f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr
        )
        return 1


def run_command(words: Sequence[str]) -> int:
    """Runs the command that the first word names, the report without one."""
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]]).main(words[1:]))
    return int(import_module(ITEM if words and not words[0].startswith("-") else REPORT).main(words))


if __name__ == "__main__":
    sys.exit(main())
