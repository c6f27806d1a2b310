"""Keeps what never changes from one report to the next: the papers' figures, tables and figures of kept results.

Drawings are most of a report's time. They lie in the user's cache folder, and are drawn anew when any source or
config file of this checkout, or a library that draws, has changed.
"""

import hashlib
import logging
import os
import platform
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from joblib import Memory
from platformdirs import user_cache_path

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SOURCES = ("analysis", "klear_lab", "sweeps", "conf")
ENDINGS = (".py", ".csv", ".yaml")
LIBRARIES = ("matplotlib", "pandas", "numpy", "scipy", "torch")
LARGEST = 100_000_000  # bytes of the folder


def drawn_once(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its results kept: in the process, and on disk where the cache can be written to.

    What it draws must depend on nothing but its arguments, which are strings, and on the code.
    """

    def keyed(code: str, *given: str) -> Any:
        return draw(*given)

    keyed.__name__ = keyed.__qualname__ = draw.__name__
    keyed.__module__ = draw.__module__

    @cache
    def once(*given: str) -> Any:
        folder = cache_folder()
        if folder is None:
            return draw(*given)
        return Memory(folder, verbose=0).cache(keyed)(state_of_the_code(), *given)

    return once


@cache
def cache_folder() -> Path | None:
    """Returns the folder of kept drawings without the oldest of too many, None where it can't be written to."""
    folder = user_cache_path("klear_lab") / "drawings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.info("%s: can't be written to (%s); drawings aren't kept", folder, error)
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    Memory(folder, verbose=0).reduce_size(bytes_limit=LARGEST)
    return folder


@cache
def state_of_the_code() -> str:
    """Returns a hash of all that drawings depend on beside their arguments."""
    found = hashlib.sha256(platform.python_version().encode())
    for library in LIBRARIES:
        found.update(version(library).encode())
    paths = (path for source in SOURCES for path in (ROOT / source).rglob("*.*"))
    for path in sorted(path for path in paths if path.suffix in ENDINGS):
        found.update(path.read_bytes())
    return found.hexdigest()
