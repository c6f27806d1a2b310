"""Rows from files: streams JSON lines (plain or gzip) and Parquet, maps rows to our formats and checks them.

`columns` maps rows of another format (columns.py); row_formats.py says what a row of ours must hold.
"""

import codecs
import difflib
import glob
import gzip
import importlib.resources
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from klear_lab.config import ConfigError
from klear_lab.data.columns import checked_columns, used_paths
from klear_lab.data.row_formats import make_row
from klear_lab.data.suggestions import typed
from klear_lab.data.table import write_rows
from klear_lab.rows import BadRow, RawRow, Row, shown

JSON_LINES, JSON_LINES_GZIP = (".jsonl", ".json", ".ndjson"), (".jsonl.gz", ".json.gz", ".ndjson.gz")
SUFFIXES = (*JSON_LINES, *JSON_LINES_GZIP, ".parquet")
IN_PACKAGE = "pkg://"  # begins the name of a file that is shipped with a package: pkg://package/path
LONGEST_LINE = 10_000_000  # bytes, uncompressed
PARQUET_BATCH_ROWS = 64  # rows of code data hold megabytes of tests
PARQUET_BUFFER = 1 << 20  # bytes of a column at once; else, or with pre_buffer, a row group, often the whole file
# What pyarrow raises for a date after the year 9999 or a time zone that nobody knows, in part by Python's means.
NOT_IN_PYTHON = (ValueError, OverflowError, LookupError, NotImplementedError, pa.ArrowException)
SKIP = "fix it, or data.on_bad_row=skip drops and counts such rows"


@dataclass(frozen=True)
class RowsRead:
    """Holds the good rows that were read, in their order, and counts what was left out."""

    rows: Sequence[Row]
    bad_rows: dict[str, int]  # reason -> how many
    examples: dict[str, str]  # reason -> place and message of the first
    not_kept: int  # rows that `keep` or `drop` left out


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
    left_out = LeftOut()
    good = islice(good_rows(raws, columns, kind, on_bad_row, where, left_out), limit)
    rows = [*good] if into is None else write_rows(good, into)
    return RowsRead(rows, dict(left_out.bad_rows), left_out.examples, left_out.not_kept)


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


def json_rows(path: Path, name: str, longest_line: int) -> Iterator[RawRow]:
    """Yields the rows of a file of JSON lines, one object a line; empty lines aren't rows."""
    number = 1
    with open_bytes(path) as file:
        lines = read_lines(file, longest_line)
        while True:
            place, row_name = f"{path}, line {number}", f"{name}-{number}"
            try:
                line = next(lines)
            except StopIteration:
                return
            except (EOFError, OSError, zlib.error) as error:
                yield RawRow(place, row_name, truncated(error))
                return
            content = parse_line(line, number, longest_line)
            if content is not None:
                yield RawRow(place, row_name, content)
            number += 1


def open_bytes(path: Path) -> BinaryIO | gzip.GzipFile:
    """Opens a file for reading; what is gzipped comes unpacked."""
    return gzip.open(path) if path.name.lower().endswith(JSON_LINES_GZIP) else path.open("rb")


def read_lines(file: BinaryIO | gzip.GzipFile, longest_line: int) -> Iterator[bytes | None]:
    """Yields lines without their line end; None for one above `longest_line` bytes, which it never holds whole."""
    while line := file.readline(longest_line + 2):
        ended = line.endswith(b"\n")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) <= longest_line:
            yield line
            continue
        while not ended and (rest := file.readline(1 << 20)):
            ended = rest.endswith(b"\n")
        yield None


def parse_line(line: bytes | None, number: int, longest_line: int) -> dict[str, Any] | BadRow | None:
    """Returns the object of a line, None for an empty line, and a `BadRow` for any other.

    `line` is None where it was too long.
    """
    if line is None:
        return BadRow("line too long", f"has more than {longest_line} bytes")
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        text = line.decode("utf-8")
        if not text.strip():
            return None
        content = json.loads(text)
    except UnicodeDecodeError as error:
        return BadRow("wrong encoding", f"is not UTF-8 ({error.reason} at byte {error.start})")
    except (ValueError, RecursionError) as error:
        return BadRow("not JSON", f"is not JSON ({error}): {shown(text)}; must be one object a line")
    if not isinstance(content, dict):
        return BadRow("not JSON", f"is {shown(content)}; must be one object a line (of an array: jq -c .[])")
    return content


def parquet_rows(path: Path, name: str, used: Sequence[str]) -> Iterator[RawRow]:
    """Yields rows by small batches; what can't be read of a file is one bad row that counts for all of it.

    Columns that aren't used are None: Python may not have their values (dates after the year 9999).
    """
    number, total = 0, 1
    try:
        with pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
            total = file.metadata.num_rows
            unread = dict.fromkeys(file.schema_arrow.names)
            columns = used_columns(file.schema_arrow, used)
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=columns, use_threads=False):
                for content in batch_rows(batch):
                    number += 1
                    content = content if isinstance(content, BadRow) else {**unread, **content}
                    yield RawRow(f"{path}, row {number}", f"{name}-{number}", content)
    except (pa.ArrowException, OSError) as error:
        lost = max(total - number, 1)
        yield RawRow(f"{path}, row {number + 1}", f"{name}-{number + 1}", truncated(error, lost))
    pa.default_memory_pool().release_unused()  # else Arrow keeps what it freed, up to a row group, to the end


def used_columns(schema: pa.Schema, used: Sequence[str]) -> list[str]:
    """The columns of a file that hold the paths, and of a struct only the field that a path leads to."""
    found = []
    for path in used:
        if path in schema.names:
            found.append(path)
            continue
        steps = path.split(".")
        if steps[0] not in schema.names:
            continue
        kind, depth = schema.field(steps[0]).type, 1
        while depth < len(steps) and pa.types.is_struct(kind) and kind.get_field_index(steps[depth]) >= 0:
            kind, depth = kind.field(steps[depth]).type, depth + 1
        found.append(".".join(steps[:depth]))
    return found


def batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | BadRow]:
    """Yields the rows of a batch; a value that isn't UTF-8, or that Python lacks, costs its own row only."""
    try:
        rows = batch.to_pylist()
    except NOT_IN_PYTHON:
        rows = [read_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
    yield from rows


def read_row(batch: pa.RecordBatch) -> dict[str, Any] | BadRow:
    """The row of a batch of one."""
    content = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            content[name] = column[0].as_py()
        except UnicodeDecodeError as error:
            return BadRow("wrong encoding", f"has text that is not UTF-8 ({error.reason})")
        except NOT_IN_PYTHON as error:
            return BadRow("unreadable column", f"{name}: is {column.type} that can't be read ({error})")
    return content


def truncated(error: Exception, count: int = 1) -> BadRow:
    """Makes the bad row that ends a file where reading fails; `count` is how many rows are lost."""
    found = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadRow("truncated file", f"the file is truncated or corrupt from here on ({found})", count)
