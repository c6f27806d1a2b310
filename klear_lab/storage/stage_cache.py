"""The stage cache: a stage whose config and inputs are known is made once, by whichever run comes first.

Each result is a folder `<cache_dir>/<stage>-<key>`, renamed into place when it is complete. A file lock makes
parallel runs wait for the first instead of training the same SFT twice; a killed holder frees it.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from klear_lab.config import Config
from klear_lab.identity import content_hash
from klear_lab.storage.files import StorageError, sync, sync_tree
from klear_lab.storage.interruption import Interrupted, Stop

log = logging.getLogger(__name__)

# Raise one when its stage gives other results for the same config: what was made before is made anew.
STAGE_VERSIONS = {"data": 2, "sft": 4, "rl": 7}


@dataclass(frozen=True)
class CachedStage:
    """A finished stage; `seconds` is what making or fetching it took this time."""

    folder: Path
    key: str
    from_cache: bool
    seconds: float


def cache_folder(config: Config) -> Path:
    """Returns the folder of finished stages, which all runs share."""
    return Path(config.cache_dir).expanduser().absolute()


def stage_key(stage: str, content: Any) -> str:
    """Returns what the result of a stage is known by; see `cached`."""
    return content_hash({"stage": stage, "content": content})


def cached(
    stage: str, content: Any, cache_dir: Path, make: Callable[[Path], None], stop: Stop, holds: str = ""
) -> CachedStage:
    """Returns the result of `make(folder)` for this content, made now or found.

    `content` is everything the result depends on, as JSON types. A `make` that was killed finds in its folder
    what it had written. A folder without the file `holds` has an older form, and is made anew.
    """
    started = time.perf_counter()
    key = stage_key(stage, content)
    folder, partial = cache_dir / f"{stage}-{key}", cache_dir / f"{stage}-{key}.partial"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with held_lock(cache_dir / f"{stage}-{key}.lock", f"making the {stage} stage", stop):
        found = (folder / holds).exists()
        if not found:
            partial.mkdir(exist_ok=True)
            make(partial)
            sync_tree(partial)  # its new name says that it is complete
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
            sync(cache_dir)
    return CachedStage(folder, key, found, time.perf_counter() - started)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raises `StorageError` where a finished stage can't be read."""
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise StorageError(
            f"{folder}: damaged ({error}); delete this folder, and the same command makes it anew"
        ) from error


class Busy(Exception):
    """Another process holds a lock that isn't waited for."""


def is_held(path: Path) -> bool:
    """Tells whether any process, on any machine that sees the file, holds a lock now."""
    if not path.exists():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True


@contextmanager
def held_lock(path: Path, what: str, stop: Stop, wait: bool = True) -> Iterator[None]:
    """Holds a lock; logs that another process has to finish first, and leaves when asked to stop.

    Without `wait`, raises `Busy` where another process holds it.
    """
    lock, told = FileLock(path), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1 if wait else 0)
        except Timeout:
            if not wait:
                raise Busy(f"another process is {what}") from None
            if stop.requested:
                raise Interrupted(f"stopped while another process was {what}; nothing is lost") from None
            if not told:
                log.info("another process is %s; waiting for it", what)
            told = True
    try:
        yield
    finally:
        lock.release()
