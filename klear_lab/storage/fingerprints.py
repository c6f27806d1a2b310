"""Fingerprints of files: hashes of their bytes, so that a copy, a `touch` or another folder changes nothing.

Hashing gigabytes takes seconds to minutes, so `<cache_dir>/file_hashes.txt` remembers what was hashed: one line a
file, with a checksum of its own. Nothing relies on it: lines that can't be read are passed by, and a file whose
status has changed since is read again. Lines are appended in one write, so that processes can share it.
"""

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.storage.files import StorageError, append_whole

log = logging.getLogger(__name__)

HASHES = "file_hashes.txt"  # lines of checksum, hash and file status
DIGITS = 16  # of each hash, in hexadecimal
# A file that was written a moment ago may be written again within one tick of the file system's clock, so that its
# status would stay the same; it isn't remembered.
SETTLED_NS = 2_000_000_000
LARGE = 1 << 30  # bytes; reading more is announced

# A file's name, with the key of the config that leads to it, and its hash; in order.
Fingerprint = list[list[str]]


def fingerprint(files: Iterable[tuple[str, Path]], cache_dir: Path) -> Fingerprint | None:
    """Hashes files by content; None for no files.

    `files`: what each is called in the result and in messages, wherever it lies, and its path. Raises
    `ConfigError` for one that can't be read.
    """
    found, known, fresh = [], read_hashes(cache_dir / HASHES), {}
    for name, path in files:
        try:
            status = status_of(path)
            asked_ns = time.time_ns()
            content_hash = known.get(status) or hash_content(path)
            if status not in known and status_of(path) == status and asked_ns - changed_ns(status) > SETTLED_NS:
                fresh[status] = content_hash
        except OSError as error:
            raise ConfigError(f"{name}: can't be read ({error.strerror or error}): {path}") from error
        found.append([name, content_hash])
    if fresh:
        remember(cache_dir / HASHES, fresh)
    return found or None


def is_fingerprint(recorded: Any) -> bool:
    """Tells whether a record holds what `fingerprint` returns."""
    if recorded is None:
        return True
    pairs = recorded if isinstance(recorded, list) else [None]
    return all(isinstance(p, list) and len(p) == 2 and all(isinstance(word, str) for word in p) for p in pairs)


def is_hidden(path: Path, folder: Path) -> bool:
    """Tells whether a file below `folder` is no content of it: in .cache or .git, or a lock file."""
    return path.suffix == ".lock" or any(part.startswith(".") for part in path.relative_to(folder).parts)


def difference(before: Fingerprint, after: Fingerprint) -> str | None:
    """Names the first file that isn't what it was; returns None where all are."""
    old, new = ({file[0]: file[1] for file in files} for files in (before, after))
    for name in [*old, *new]:
        if name not in new:
            return f"{name} is gone"
        if name not in old:
            return f"{name} is new"
        if old[name] != new[name]:
            return f"{name} has changed"
    return None if before == after else "the order of the files has changed"


def status_of(path: Path) -> str:
    """Describes all by which the system knows a file: any write changes it, even one that sets the old time."""
    status = path.stat()
    return json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])


def changed_ns(status: str) -> int:
    """Returns when the file was last changed, of what `status_of` says."""
    return int(json.loads(status)[3])


def hash_content(path: Path) -> str:
    """Reads a file and hashes its bytes."""
    if (size := path.stat().st_size) > LARGE:
        log.info("reading %s (%.1f GiB) to know it again", path, size / LARGE)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def read_hashes(file: Path) -> dict[str, str]:
    """Reads the hashes that are remembered, by file status; a line that isn't whole is passed by."""
    known: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:  # absent, or not readable: everything is hashed anew
        return known
    for line in lines:
        checksum, _, content = line.partition(" ")
        if checksum == checksum_of(content):
            content_hash, _, status = content.partition(" ")
            known[status] = content_hash
    return known


def remember(file: Path, fresh: dict[str, str]) -> None:
    """Adds hashes to those that are remembered, where that can be written."""
    contents = [f"{content_hash} {status}" for status, content_hash in fresh.items()]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # The empty line parts them from a line that a kill may have cut short.
        append_whole(file, "\n" + "\n".join(f"{checksum_of(content)} {content}" for content in contents))
    except (StorageError, OSError) as error:
        log.warning("hashes of files aren't remembered, so they are read again next time: %s", error)


def checksum_of(content: str) -> str:
    """Returns the CRC-32 of a line's content, in hexadecimal."""
    return f"{zlib.crc32(content.encode()):08x}"


def weights_fingerprint(model: ModelConfig, cache_dir: Path) -> Fingerprint | None:
    """Hashes what transformers may read of a model folder; None for a model from scratch or from the hub.

    `cache_dir` remembers hashes. Raises `ConfigError` for a file that can't be read.
    """
    if model.path is None or not (folder := Path(model.path).expanduser()).is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path, folder))
    read = [path for path in files if path.suffix.lower() != ".md"]
    return fingerprint([(f"model.path: {path.name}", path) for path in read], cache_dir)
