"""Rows on disk: an Arrow file of which a process holds only the rows that it looks at.

The file has one column, `row`, of JSON texts: rows may have keys and nested values of any types, which columns of
their own would have to agree on. Every record batch but the last has 64 rows, so that row i is in batch i // 64.

Single rows come through a memory map. A walk reads one batch after the other into memory instead: what it has
touched of a map would count as the process's own memory until the map is closed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from klear_lab.rows import Row
from klear_lab.storage.stage_cache import reading

T = TypeVar("T")

ROWS_A_BATCH = 64  # of 30 KB each they take 2 MB; of code with all its tests a hundred times that
SCHEMA = pa.schema([("row", pa.large_string())])


class StoredRows(Sequence[Row]):
    """Rows of a file of `write_rows`, all of them or a selection, read when they are asked for.

    The file is opened when the first row, or their number, is needed. Reading raises `StorageError` for a damaged
    file.
    """

    def __init__(self, path: Path, chosen: NDArray[np.int64] | None = None) -> None:
        """`chosen` are the numbers of the selected rows in the file, in the order that they have here."""
        self.path, self.chosen = path, chosen

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return self.stored if self.chosen is None else len(self.chosen)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        """Returns a row, or the list of those of a slice."""
        if isinstance(at, slice):
            return [*self.walk(at)]
        place = range(len(self))[at]
        number = place if self.chosen is None else int(self.chosen[place])
        with reading(self.path.parent):
            batch = self.mapped.get_batch(number // ROWS_A_BATCH)
            return parsed(batch.column(0)[number % ROWS_A_BATCH].as_py())

    def __iter__(self) -> Iterator[Row]:
        """Yields all rows, one batch in memory at a time."""
        return self.walk(slice(None))

    def walk(self, at: slice) -> Iterator[Row]:
        """Yields the rows of a slice, one batch in memory at a time."""
        with reading(self.path.parent):
            for line in self.lines(at):
                yield parsed(line)

    def lines(self, at: slice = slice(None)) -> Iterator[str]:
        """Yields the rows of a slice as JSON, one batch in memory at a time."""
        numbers = range(self.stored)[at] if self.chosen is None else self.chosen[at]
        with reading(self.path.parent), pa.OSFile(str(self.path)) as file:
            reader, opened = pa.ipc.open_file(file), -1
            for number in map(int, numbers):
                if number // ROWS_A_BATCH != opened:
                    opened = number // ROWS_A_BATCH
                    texts = reader.get_batch(opened).column(0)
                yield texts[number % ROWS_A_BATCH].as_py()

    def select(self, places: NDArray[np.int64]) -> "StoredRows":
        """Returns the rows at some places, in that order; nothing is read or copied."""
        return StoredRows(self.path, places if self.chosen is None else self.chosen[places])

    def fresh(self) -> "StoredRows":
        """Returns the same rows with no file open, to be sent to another process."""
        return StoredRows(self.path, self.chosen)

    @cached_property
    def mapped(self) -> Any:
        """Returns the file's reader, through a memory map."""
        with reading(self.path.parent):
            return pa.ipc.open_file(pa.memory_map(str(self.path)))

    @cached_property
    def stored(self) -> int:
        """Returns how many rows the file has."""
        batches = self.mapped.num_record_batches
        with reading(self.path.parent):
            last = self.mapped.get_batch(batches - 1).num_rows if batches else 0
        return max(0, batches - 1) * ROWS_A_BATCH + last


@dataclass(frozen=True)
class MappedRows(Sequence[T]):
    """What a function makes of rows, one by one, as they are read; nothing is kept."""

    rows: Sequence[Row]
    function: Callable[[Row], T]

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        """Returns one, or the list of those of a slice."""
        if isinstance(at, slice):
            return [self.function(row) for row in self.rows[at]]
        return self.function(self.rows[at])

    def __iter__(self) -> Iterator[T]:
        """Yields all of them."""
        return map(self.function, self.rows)


def write_rows(rows: Iterable[Row], path: Path) -> StoredRows:
    """Writes rows into a file, in place of any old one, and returns them from there; holds one batch at a time."""
    lines = rows.lines() if isinstance(rows, StoredRows) else map(as_json, rows)
    # A file of Python's, whose errors have the system's number: pyarrow's own only say it in words.
    with path.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        while batch := [*islice(lines, ROWS_A_BATCH)]:
            writer.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema=SCHEMA))
    return StoredRows(path)


def as_json(row: Row) -> str:
    """Returns a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)


def parsed(line: str) -> Row:
    """Returns the row of a line of JSON."""
    row: Row = json.loads(line)
    return row
