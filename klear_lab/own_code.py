"""Finds and loads functions that a person wrote outside of this repository: `my_file.py:name` or `my_module:name`.

A file's path is relative to the working directory, where modules are looked for as well.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIGITS = 12  # of a source's hash, in hexadecimal
LOADED: dict[tuple[str, str], Any] = {}  # modules, by where they were found and their text's hash


def split(place: str) -> tuple[str, str]:
    """Splits `where:name`. Raises `ValueError` for anything else."""
    where, colon, name = str(place).rpartition(":")
    if not (colon and where and name.isidentifier()):
        raise ValueError("must be my_file.py:my_function or my_module:my_function")
    return where, name


def find_file(where: str) -> Path:
    """Returns the file of a path or module. Raises `ValueError` where there is none."""
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no file {path.absolute()}")
        return path
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError) as error:
        raise ValueError(f"there is no module {where} ({error})") from error
    except (Exception, SystemExit) as error:  # the package of a module is run here
        raise ValueError(f"{where} can't be loaded: {type(error).__name__}: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ValueError(f"there is no module {where} in {Path.cwd()} or among those that are installed")
    return Path(spec.origin)


def source_of(place: str) -> str:
    """Returns a hash of the text of a function's file. Raises `ValueError` where there is none."""
    return hashlib.sha256(find_file(split(place)[0]).read_bytes()).hexdigest()[:DIGITS]


def known_source(place: str | None) -> str | None:
    """Returns the same hash, None where there is no file; whoever loads the function then says why."""
    try:
        return None if place is None else source_of(place)
    except ValueError:
        return None


def load_function(place: str, source: str) -> Callable[..., Any]:
    """Returns a function whose file has this hash; one that was loaded before stays, whatever becomes of its file.

    Raises `ValueError` for a file that has changed, can't be run, or has no such function.
    """
    where, name = split(place)
    if (where, source) not in LOADED:
        if (found := source_of(place)) != source:
            raise ValueError(f"{where} has changed: its source is {found}, and the run's is {source}")
        try:
            LOADED[where, source] = load_module(where, source)
        except (Exception, SystemExit) as error:  # a person's own code may raise anything
            raise ValueError(f"{where} can't be loaded: {type(error).__name__}: {error}") from error
    function = getattr(LOADED[where, source], name, None)
    if not callable(function):
        raise ValueError(f"{where} has no function {name}")
    return function


def load_module(where: str, source: str) -> Any:
    """Runs a file, or imports a module, again if its text has changed since."""
    if not where.endswith(".py"):
        return importlib.reload(sys.modules[where]) if where in sys.modules else importlib.import_module(where)
    path = find_file(where)
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{source}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
