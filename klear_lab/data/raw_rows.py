"""Rows of one file as they are: of JSON lines (plain or gzip) one by one, of Parquet by small batches."""

import codecs
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from klear_lab.rows import BadRow, RawRow, shown
from klear_lab.verify.json_objects import RepeatedKey, read_json

PARQUET_BATCH_ROWS = 64  # rows of code data hold megabytes of tests
PARQUET_BUFFER = 1 << 20  # bytes of a column at once; else, or with pre_buffer, a row group, often the whole file
# What pyarrow raises for a date after the year 9999 or a time zone that nobody knows, in part by Python's means.
NOT_IN_PYTHON = (ValueError, OverflowError, LookupError, NotImplementedError, pa.ArrowException)


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
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


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
        content = read_json(text)
    except UnicodeDecodeError as error:
        return BadRow("wrong encoding", f"is not UTF-8 ({error.reason} at byte {error.start})")
    except RepeatedKey as error:
        return BadRow("repeated key", str(error))
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
            repeated = repeated_name([*file.schema_arrow])
            if repeated is not None and total:
                said = f"has the column or field {repeated!r} twice, as every row of the file has; keep one"
                yield RawRow(f"{path}, row 1", f"{name}-1", BadRow("repeated key", said, total))
                return
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


def repeated_name(fields: Sequence[pa.Field]) -> str | None:
    """A name that several of these columns or fields have, or several fields within one of them, at any depth."""
    names = Counter(field.name for field in fields)
    nested = ([field.type.field(i) for i in range(field.type.num_fields)] for field in fields)
    here = next((name for name, count in names.items() if count > 1), None)
    return here if here is not None else next((n for n in map(repeated_name, nested) if n is not None), None)


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
