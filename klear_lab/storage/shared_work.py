"""Work that processes on any machines share because they see one folder: each takes the next part that is free.

A part is done when its result's file is there, whole. The process that works on it holds a lock; when that process
is killed the system frees the lock, and another takes the part.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_BETWEEN_LOOKS = 1.0


def take_parts(results: Sequence[Path]) -> Iterator[int]:
    """Yields the number of each part that this process is to do, and ends when all are done, by whichever process.

    The file of a part's result must be there when the next part is asked for. Waits for parts of other processes.
    """
    left = list(range(len(results)))
    while left:
        before = len(left)
        for number in list(left):
            path = results[number]
            if not path.exists():
                lock = FileLock(path.with_name(f"{path.name}.lock"))
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                try:
                    if not path.exists():
                        yield number
                finally:
                    lock.release()
            left.remove(number)
        if len(left) == before:
            time.sleep(SECONDS_BETWEEN_LOOKS)
