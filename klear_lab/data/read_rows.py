"""Rows from files: finds the files, maps their rows (raw_rows.py) to our formats and checks them.

`columns` maps rows of another format (columns.py); row_formats.py says what a row of ours must hold.
"""

import difflib
import glob
import importlib.resources
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from klear_lab.config import ConfigError
from klear_lab.data.columns import checked_columns, used_paths
from klear_lab.data.raw_rows import json_rows, parquet_rows
from klear_lab.data.row_formats import make_row
from klear_lab.data.suggestions import typed
from klear_lab.data.table import write_rows
from klear_lab.rows import BadRow, RawRow, Row

JSON_LINES, JSON_LINES_GZIP = (".jsonl", ".json", ".ndjson"), (".jsonl.gz", ".json.gz", ".ndjson.gz")
SUFFIXES = (*JSON_LINES, *JSON_LINES_GZIP, ".parquet")
IN_PACKAGE = "pkg://"  # begins the name of a file that is shipped with a package: pkg://package/path
LONGEST_LINE = 10_000_000  # bytes, uncompressed
SKIP = "fix it, or data.on_bad_row=skip drops and counts such rows"


@dataclass(frozen=True)
class RowsRead:
    """Holds the good rows that were read, in their order, and counts what was left out."""

    rows: Sequence[Row]
    bad_rows: dict[str, int]  # reason -> how many
    examples: dict[str, str]  # reason -> place and message of the first
    not_kept: int  # rows that `keep` or `drop` left out
    unread: bool  # whether there are rows behind the limit


@dataclass
class LeftOut:
    """Counts the rows that reading leaves out, while it goes on."""

    bad_rows: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    not_kept: int = 0


def read_rows(
    files: Sequence[str],
    columns: Mapping[str, Any] | None,
    kind: str,
    on_bad_row: str = "stop",
    limit: int | None = None,
    longest_line: int = LONGEST_LINE,
    where: str = "columns",
    into: Path | None = None,
) -> RowsRead:
    """Reads the rows of files: names, globs (in order of their names), and pkg://package/path for a package's own.

    `kind`: "rl" or "sft". `limit`: reading ends after so many good rows. `longest_line`: bytes; no more of a line
    is held in memory. `where`: the key of `columns` in the config, for what to type. `into`: a file to keep the
    rows in instead of memory. Raises `ConfigError` for a missing file or a mistake in `columns`, and at the first
    bad row unless `on_bad_row` is "skip".
    """
    paths = find_files(files)
    used = used_paths(checked_columns(columns, kind, where))
    return collect(raw_rows(paths, longest_line, used), columns, kind, on_bad_row, limit, where, into)


def collect(
    raws: Iterable[RawRow],
    columns: Mapping[str, Any] | None,
    kind: str,
    on_bad_row: str,
    limit: int | None,
    where: str = "columns",
    into: Path | None = None,
) -> RowsRead:
    """Maps and checks raw rows from anywhere. Raises `ConfigError` as `read_rows` does."""
    left_out, raws = LeftOut(), iter(raws)
    good = islice(good_rows(raws, columns, kind, on_bad_row, where, left_out), limit)
    rows = [*good] if into is None else write_rows(good, into)
    unread = len(rows) == limit and next(raws, None) is not None
    return RowsRead(rows, dict(left_out.bad_rows), left_out.examples, left_out.not_kept, unread)


def good_rows(
    raws: Iterable[RawRow],
    columns: Mapping[str, Any] | None,
    kind: str,
    on_bad_row: str,
    where: str,
    left_out: LeftOut,
) -> Iterator[Row]:
    """Yields the rows that can be used and counts the others. Raises `ConfigError` as `read_rows` does."""
    if on_bad_row not in ("stop", "skip"):
        raise ConfigError(f"data.on_bad_row={on_bad_row}: must be one of stop, skip")
    given, columns = columns or {}, checked_columns(columns, kind, where)
    seen: dict[str, str] = {}
    for raw in raws:
        try:
            row = make_row(raw, columns, kind)
            if row is None:
                left_out.not_kept += 1
                continue
            if kind == "rl" and seen.setdefault(row["id"], raw.place) != raw.place:
                raise BadRow("duplicate id", f"id: {row['id']!r} is also that of {seen[row['id']]}")
        except BadRow as problem:
            said = f"{raw.place}: {problem}"
            if problem.mapping is not None and isinstance(raw.content, dict):
                said += f"; {typed(problem.mapping, given, kind, where, raw.content)}"
            if on_bad_row == "stop":
                raise ConfigError(f"{said}; {SKIP}") from problem
            left_out.bad_rows[problem.reason] += problem.count
            left_out.examples.setdefault(problem.reason, said)
            continue
        yield row


# Files


def find_files(files: Sequence[str]) -> list[Path]:
    """Finds the files that names and globs stand for, each file once.

    Raises `ConfigError` for a missing file, with the nearest names, and for one that doesn't end in `SUFFIXES`.
    """
    if not files:
        raise ConfigError("files: names none; give at least one file or glob")
    found: dict[Path, None] = {}
    for name in files:
        wanted = in_package(name) if name.startswith(IN_PACKAGE) else Path(name).expanduser()
        is_glob = glob.has_magic(str(wanted)) and not wanted.exists()
        root = Path(wanted.anchor)
        paths = sorted(root.glob(str(wanted.relative_to(root)))) if is_glob else [wanted]
        for path in (path for path in paths if path.is_symlink() and not path.exists()):
            raise ConfigError(f"{path}: is a link to {path.readlink()}, where nothing is; mend it or name another")
        if wanted.is_dir():
            raise ConfigError(f"{name}: is a folder; {files_inside(wanted, name)}")
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise ConfigError(f"{name}: {'no file matches' if is_glob else 'no such file'}; {nearest(wanted)}")
        found |= dict.fromkeys(paths)
    for path in found:
        if not path.name.lower().endswith(SUFFIXES):
            raise ConfigError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    return list(found)


def in_package(name: str) -> Path:
    """Returns the path of the file pkg://package/path. Raises `ConfigError` where there is no such package."""
    package, _, inside = name.removeprefix(IN_PACKAGE).partition("/")
    try:
        return Path(str(importlib.resources.files(package))) / inside
    except (ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            f"{name}: there is no package {package or 'of no name'}; install it, or name a path"
        ) from error


def files_inside(folder: Path, name: str) -> str:
    """What to write for the files of a folder."""
    suffixes = Counter(s for path in folder.iterdir() for s in SUFFIXES if path.name.lower().endswith(s))
    if not suffixes:
        return f"none of what is in it ends in one of {', '.join(SUFFIXES)}"
    ((suffix, _),) = suffixes.most_common(1)
    return f"for the files in it write ['{name.rstrip('/')}/*{suffix}']"


def nearest(path: Path) -> str:
    """Names the files and folders most like a missing one, in the nearest folder that exists."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    wanted = path.relative_to(folder).parts[0]
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.3) or names[:3]
    return f"nearest in {folder.resolve()}: {', '.join(close)}" if close else f"{folder.resolve()} is empty"


def raw_rows(paths: Sequence[Path], longest_line: int, used: Sequence[str]) -> Iterator[RawRow]:
    """Yields the rows of all files, in their order; `used` are the columns, or paths into them, that matter."""
    for path, name in zip(paths, row_names(paths), strict=True):
        if path.name.lower().endswith(".parquet"):
            yield from parquet_rows(path, name, used)
        else:
            yield from json_rows(path, name, longest_line)


def row_names(paths: Sequence[Path]) -> list[str]:
    """Returns how the ids of each file's rows begin: with its stem, or where stems are equal, more of its path."""
    stems = [next(path.name[: -len(s)] for s in SUFFIXES if path.name.lower().endswith(s)) for path in paths]
    shared = {stem for stem, count in Counter(stems).items() if count > 1}
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return [
        path.absolute().relative_to(root).as_posix() if stem in shared else stem
        for path, stem in zip(paths, stems, strict=True)
    ]
