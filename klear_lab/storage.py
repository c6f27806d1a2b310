"""Files that a run can't afford to lose: replaced whole, and a full disk or a vanished folder said in one line.

A kill leaves the old file or the new one. Content is on the disk before its name is, so that a power cut can't
leave an empty file under a good name.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(RuntimeError):
    """A file can't be written or read; the message names it and says what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which takes the place of `path` when all of it is written.

    Raises `StorageError`; the old file is untouched and the temporary one gone.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what the system says of writing `path` into `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(explanation(path, error)) from error
    except RuntimeError as error:
        # torch.save hides the system's error behind one of its own.
        if isinstance(error.__context__, OSError):
            raise StorageError(explanation(path, error.__context__)) from error
        raise


def explanation(path: Path, error: OSError) -> str:
    """One line for a user."""
    if error.errno in FULL or os.strerror(errno.ENOSPC) in str(error):  # pyarrow brings words and no number
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0.0
        return (
            f"{path}: the disk is full or the quota used up ({free:.1f} MiB free); make room, and the same "
            "command goes on from the last checkpoint"
        )
    if not path.parent.is_dir():
        return f"{path.parent}: the folder vanished while it was written to; the same command starts it anew"
    return f"{path}: can't be written ({error.strerror or error}); put that right, and the same command goes on"


def replace_file(path: Path, content: str) -> None:
    """Writes a text file whole. Raises `StorageError`."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def append_whole(path: Path, line: str) -> None:
    """Adds one line whole, or nothing. Raises `StorageError`."""
    with explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before, content = os.fstat(descriptor).st_size, (line + "\n").encode()
            try:
                if os.write(descriptor, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
