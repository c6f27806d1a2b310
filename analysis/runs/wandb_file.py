"""Reads offline `.wandb` files: LevelDB logs of protobuf records behind a 7-byte header, as of wandb 0.31.

wandb itself has no reader of them outside its upload. The log is cut into blocks of 32 KiB; each record has a
header of checksum (4), length (2) and type (1), and one that doesn't fit a block comes in parts (2 first,
3 middle, 4 last; 1 is whole).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

BLOCK, HEADER, START = 32 * 1024, 7, 7


@dataclass(frozen=True)
class WandbFile:
    """Holds what one run's file says.

    config: without wandb's own part. history: rows in order. exit_code: None where the run never ended.
    """

    run_id: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    exit_code: int | None
    started: int


def read_file(path: Path) -> WandbFile:
    """Reads one file, also one that its run still writes to. Raises ValueError for one that is no such file."""
    run_id, exit_code, started = "", None, 0
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id, started = record.run.run_id, record.run.start_time.seconds
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
        elif kind == "history":
            rows.append(history_row(record))
        elif kind == "exit":
            exit_code = record.exit.exit_code
    if not run_id:
        raise ValueError("no wandb run in it")
    config.pop("_wandb", None)
    return WandbFile(run_id, config, rows, exit_code, started)


def history(path: Path) -> list[dict[str, Any]]:
    """Returns the history rows in order, wandb's own columns (`_step`, `_runtime`, ...) included."""
    return [history_row(record) for record in records(path) if record.WhichOneof("record_type") == "history"]


def history_row(record: Record) -> dict[str, Any]:
    """Returns one row, with nested keys joined by a slash."""
    items = record.history.item
    row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {"_step": record.history.step.num, **row}


def records(path: Path) -> list[Record]:
    """Returns all whole records. Raises ValueError for content that isn't wandb's."""
    try:
        return [Record.FromString(payload) for payload in payloads(path.read_bytes())]
    except DecodeError as error:
        raise ValueError(f"not a wandb log ({error})") from error


def payloads(data: bytes) -> list[bytes]:
    """Returns the records of a LevelDB log, put together from their parts, but not a last one cut short."""
    found, parts, position = [], b"", START
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too little for a header: filled with zeros
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        end = position + HEADER + length
        if kind == 0 or end > len(data):
            break
        parts += data[position + HEADER : end]
        position = end
        if kind in (1, 4):
            found.append(parts)
            parts = b""
    return found
