"""Turns errors that a person can put right into one line on stderr, for every command."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps

from analysis.errors import NotComparableError, OutputError, RunFolderError

Main = Callable[[Sequence[str]], int]


def explained_in_a_line(main: Main) -> Main:
    """Makes a command print what it couldn't read, compare or write in one line, and return 1."""

    @wraps(main)
    def explained(argv: Sequence[str]) -> int:
        try:
            return main(argv)
        except (RunFolderError, NotComparableError, OutputError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1

    return explained
