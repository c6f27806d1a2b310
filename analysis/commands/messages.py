"""What every command says on stderr: errors that a person can put right in one line, and caveats of numbers."""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps

from analysis.errors import NotComparableError, OutputError, RunFolderError

Main = Callable[[Sequence[str]], int]


def note_caveats(lines: Iterable[str]) -> None:
    """Prints what a reader must know of numbers, a line each."""
    for line in lines:
        print(f"note: {line}", file=sys.stderr)


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
