"""Token ids of SFT rows on disk: made once for each tokenizer, by all processors, and read through a memory map.

A folder of them is a stage of its own in the cache, `tokens-<key>`. `tokens.bin` has the ids of the first row's
prompt, its response, the second row's prompt and so on, in the smallest integer type that holds the tokenizer's.
`lengths.bin` has how many these are, each as four bytes. `about.json` says the type and how many rows are there.

Rows go through in order and by chunks, so that the files are the same whatever the number of processes. Who is
stopped or killed goes on after the rows that `about.json` counts.
"""

import json
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor
from numpy.typing import NDArray

from klear_lab.config import ConfigError, OutOfMemory
from klear_lab.data.table import StoredRows
from klear_lab.identity import content_hash
from klear_lab.policy.codec import RENDER_ERRORS, Codec
from klear_lab.progress import Display
from klear_lab.rows import Row, prompt_text
from klear_lab.storage.files import replace_file
from klear_lab.storage.fingerprints import hash_content
from klear_lab.storage.interruption import Interrupted, Stop, deaf_to_interrupts
from klear_lab.storage.stage_cache import CachedStage, cached, reading

# Raise it when the same rows and tokenizer give other tokens, or the files another form. It isn't among
# STAGE_VERSIONS, because finished runs that don't know all of those are refused.
VERSION = 1
ROWS_A_CHUNK = 64
LITTLE = 16 << 20  # bytes of rows that one process has done before others would have started
SAVE_SECONDS = 30.0  # of work that a kill may cost
LENGTH = np.uint32
ABOUT, IDS, LENGTHS = "about.json", "tokens.bin", "lengths.bin"


@dataclass(frozen=True)
class Chunk:
    """Holds the tokens of some rows, as the files do."""

    lengths: NDArray[np.uint32]  # (2 * rows,)
    ids: NDArray[Any]


@dataclass(frozen=True)
class TokenTable:
    """Holds the tokens of all rows, the ids on disk until they are asked for."""

    ids: NDArray[Any]  # (tokens of all rows,)
    prompt_length_R: NDArray[np.int64]
    response_length_R: NDArray[np.int64]
    start_R: NDArray[np.int64]  # where a row's prompt begins in `ids`

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return len(self.start_R)

    def row(self, number: int) -> tuple[list[int], list[int]]:
        """Returns the token ids of a row's prompt and of its response."""
        start = int(self.start_R[number])
        middle = start + int(self.prompt_length_R[number])
        end = middle + int(self.response_length_R[number])
        return self.ids[start:middle].tolist(), self.ids[middle:end].tolist()


def tokenized(
    rows: Sequence[Row], data_key: str, codec: Codec, cache_dir: Path, stop: Stop, display: Display
) -> TokenTable:
    """Returns the tokens of the prepared SFT rows that `data_key` names, made now or found in the stage cache.

    Raises `ConfigError` for a row that the chat template can't write, and `Interrupted` when asked to stop.
    """
    content = {"version": VERSION, "data": data_key, "codec": codec_fingerprint(codec)}

    def make(partial: Path) -> None:
        write_tokens(rows, codec, partial, stop, display)

    stage: CachedStage = cached("tokens", content, cache_dir, make, stop)
    with reading(stage.folder):
        return read_tokens(stage.folder)


def codec_fingerprint(codec: Codec) -> str:
    """Hashes all of a codec that its tokens depend on: the tokenizer's files, the template and its arguments."""
    with tempfile.TemporaryDirectory() as folder:
        codec.tokenizer.save_pretrained(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files = [[path.relative_to(folder).as_posix(), hash_content(path)] for path in paths]
    return content_hash([files, codec.template_arguments, codec.turn_end_id])


def write_tokens(rows: Sequence[Row], codec: Codec, folder: Path, stop: Stop, display: Display) -> None:
    """Writes the tokens of all rows into a folder, after those that are there.

    Raises `ConfigError` for a row that the chat template can't write, `Interrupted` when asked to stop, and
    `OutOfMemory` where a process was ended from outside.
    """
    dtype = np.min_scalar_type(max(codec.tokenizer.get_vocab().values()))
    done, saved = rows_done(folder), time.monotonic()
    starts = range(done, len(rows), ROWS_A_CHUNK)
    with (
        (folder / LENGTHS).open("ab") as lengths,
        (folder / IDS).open("ab") as ids,
        display.stage("tokenizing", len(rows), done, unit="rows"),
        chunks_in_order(rows, codec, dtype, starts, stop) as chunks,
    ):

        def save() -> None:
            for file in (lengths, ids):
                file.flush()
                os.fsync(file.fileno())
            # Only now, so that it never counts what a power cut would take away.
            replace_file(folder / ABOUT, json.dumps({"rows": done, "type": dtype.name}))

        for chunk in chunks:
            lengths.write(chunk.lengths.tobytes())
            ids.write(chunk.ids.tobytes())
            done += len(chunk.lengths) // 2
            display.show("tokenizing", done, len(rows), {})
            if stop.requested and done < len(rows):
                save()
                raise Interrupted(f"{done} rows are tokenized; the same command goes on from there")
            if time.monotonic() > saved + SAVE_SECONDS:
                save()
                saved = time.monotonic()
        save()


def rows_done(folder: Path) -> int:
    """Returns how many rows an earlier attempt has left in a folder, and cuts off what it wrote after them."""
    done = size = 0
    if (folder / ABOUT).exists():
        table = read_tokens(folder)
        done, size = len(table), table.ids.nbytes
    for name, bytes_done in ((LENGTHS, 2 * LENGTH().itemsize * done), (IDS, size)):
        with (folder / name).open("ab") as file:
            file.truncate(bytes_done)
    return done


def read_tokens(folder: Path) -> TokenTable:
    """Opens what `write_tokens` wrote. Raises `ValueError` or `KeyError` for damaged files."""
    about = json.loads((folder / ABOUT).read_text())
    rows = int(about["rows"])
    length_R2 = np.fromfile(folder / LENGTHS, LENGTH, count=2 * rows).reshape(rows, 2).astype(np.int64)
    end_R = length_R2.sum(axis=1).cumsum()
    ids = np.memmap(folder / IDS, about["type"], mode="r", shape=int(end_R[-1])) if rows else np.empty(0, LENGTH)
    ids = np.asarray(ids)  # still on disk; a slice of a memmap takes ten times as long to make
    return TokenTable(ids, length_R2[:, 0], length_R2[:, 1], end_R - length_R2.sum(axis=1))


# Chunks


@contextmanager
def chunks_in_order(
    rows: Sequence[Row], codec: Codec, dtype: np.dtype[Any], starts: Sequence[int], stop: Stop
) -> Iterator[Iterator[Chunk]]:
    """Yields the chunks of rows that begin at `starts`, in order, from as many processes as there are processors.

    Few rows are done in this process. Raises `Interrupted` or `OutOfMemory` where a process was ended.
    """
    workers = min(os.cpu_count() or 1, len(starts))
    if workers < 2 or not isinstance(rows, StoredRows) or rows.path.stat().st_size < LITTLE:
        yield (encode_chunk(codec, rows, dtype, start) for start in starts)
        return
    # Loky's processes are fresh interpreters, as those of `spawn` are, and may also be started from within an arm
    # of launcher=joblib, where `spawn` fails.
    executor = ProcessPoolExecutor(
        workers, initializer=begin_worker, initargs=(codec, rows.fresh(), dtype, os.getpid())
    )
    try:
        yield results_in_order(executor, starts, ahead=2 * workers)
    except BrokenProcessPool as error:
        if stop.requested:  # whoever asked it to stop may have told its processes too
            raise Interrupted("stopped while rows were tokenized; the same command goes on from there") from error
        raise OutOfMemory(
            "a process that tokenizes rows was ended from outside, as systems do when the memory is used up; end "
            "other programs, and the same command goes on from where it was"
        ) from error
    finally:
        executor.shutdown(kill_workers=True)


def results_in_order(executor: ProcessPoolExecutor, starts: Iterable[int], ahead: int) -> Iterator[Chunk]:
    """Yields the chunks in order; no more than `ahead` are asked for or wait in memory at once."""
    waiting: deque[Any] = deque()
    for start in starts:
        with deaf_to_interrupts():  # the first one starts the processes
            waiting.append(executor.submit(work, start))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


WORKER: list[Any] = []  # in a worker process: its codec, rows and type of ids


def begin_worker(codec: Codec, rows: StoredRows, dtype: np.dtype[Any], parent: int) -> None:
    """Prepares a worker process, which ends itself when its parent is gone."""

    def leave() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
    WORKER[:] = [codec, rows, dtype]


def work(start: int) -> Chunk:
    """Encodes a chunk in a worker process."""
    codec, rows, dtype = WORKER
    return encode_chunk(codec, rows, dtype, start)


def encode_chunk(codec: Codec, rows: Sequence[Row], dtype: np.dtype[Any], start: int) -> Chunk:
    """Returns the tokens of the chunk of rows that begins at `start`."""
    chunk = rows[start : start + ROWS_A_CHUNK]
    parts = []
    for prompt_ids, row in zip(encode_prompts(codec, chunk, "SFT", start), chunk, strict=True):
        parts += [prompt_ids, codec.encode_response(row["prompt"], row["response"])]
    return Chunk(
        np.array([len(part) for part in parts], LENGTH),
        np.concatenate([np.array(part, dtype) for part in parts]),
    )


def encode_prompts(codec: Codec, rows: Sequence[Row], name: str, first: int = 0) -> list[list[int]]:
    """Returns the token ids of all prompts. Raises `ConfigError` naming a row that the template can't write.

    `first` is the number of the first row, by which rows without an id are named.
    """
    encoded = []
    for number, row in enumerate(rows, first):
        try:
            encoded.append(codec.encode_prompt(row["prompt"]))
        except RENDER_ERRORS as error:
            raise ConfigError(
                f"model.path: its chat template can't write the {name} row {row.get('id', number)} "
                f"({prompt_text(row)[:40]!r}; {type(error).__name__}: {error}); change the row's messages, or the "
                "template"
            ) from error
    return encoded
