"""Reads the history of an offline `.wandb` file: a LevelDB log of protobuf records behind a 7-byte header.

The log is cut into blocks of 32 KiB; each record has a header of checksum (4), length (2) and type (1), and one
that doesn't fit a block comes in parts (2 first, 3 middle, 4 last; 1 is whole).
"""

import json
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, START = 32 * 1024, 7, 7


def history(path: Path) -> list[dict[str, Any]]:
    """History rows in order, wandb's own columns (`_step`, `_runtime`, ...) included."""
    rows = []
    for payload in payloads(path.read_bytes()):
        record = Record.FromString(payload)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            rows.append({**row, "_step": record.history.step.num} if "_step" not in row else row)
    return rows


def payloads(data: bytes) -> list[bytes]:
    """The records of a LevelDB log, put together from their parts."""
    found, parts, position = [], b"", START
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too little for a header: filled with zeros
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if kind == 0:
            break
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):
            found.append(parts)
            parts = b""
    return found
