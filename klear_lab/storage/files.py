"""Files that a run can't afford to lose: replaced whole, and a full disk or a vanished folder said in one line.

A kill leaves the old file or the new one. Content is on the disk before its name is, so that a power cut can't
leave an empty file under a good name.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class StorageError(RuntimeError):
    """A file can't be written or read; the message names it and says what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; it replaces `path` when all of it is written.

    Raises `StorageError`; the old file is untouched and the temporary one gone.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
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
    """Explains in one line why a file can't be written, and what to do."""
    if error.errno in FULL or os.strerror(errno.ENOSPC) in str(error):  # pyarrow brings words and no number
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0.0
        return (
            f"{path}: the disk is full or the quota used up ({free:.1f} MiB free); make room, and the same "
            "command goes on from the last checkpoint"
        )
    if not path.parent.is_dir():
        return vanished(path.parent)
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
                os.fsync(descriptor)  # after a power cut a checkpoint must not know more steps than these lines
            except BaseException:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Puts a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Puts all that a folder holds on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def vanished(folder: Path) -> str:
    """Describes a folder that something removed while a run was writing to it."""
    return f"{folder}: the folder vanished while it was written to; the same command starts it anew"


def trouble(error: BaseException, folders: Sequence[Path]) -> StorageError | None:
    """Finds the full disk or vanished folder behind what a library raised; returns None for anything else.

    `folders`: those that may vanish; the first one is named where the error names no file.
    """
    chain = [error]
    while (earlier := chain[-1].__cause__ or chain[-1].__context__) is not None and earlier not in chain:
        chain.append(earlier)
    for link in chain:
        number, name = number_of(link), getattr(link, "filename", None)
        path = Path(name) if isinstance(name, str) else folders[0] / "a file"
        if number in FULL:
            return StorageError(explanation(path, OSError(number, os.strerror(number))))
        gone = [folder for folder in folders if path.is_relative_to(folder) and not folder.is_dir()]
        if number in GONE and gone:
            return StorageError(vanished(gone[0]))
    return None


def number_of(error: BaseException) -> int | None:
    """Returns the `errno`; libraries in Rust (safetensors, tokenizers) mention it only in their messages."""
    if isinstance(error, OSError):
        return error.errno
    words = re.search(r"\(os error (\d+)\)", str(error))
    return int(words[1]) if words else None


def previous(path: Path) -> Path:
    """Returns the path of the checkpoint before this one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def checksum_file(path: Path) -> Path:
    """Returns the path of a checkpoint's checksum; without one, torch.load reads flipped bits silently."""
    return path.with_name(f"{path.name}.crc32")


def forget_checkpoints(path: Path) -> None:
    """Removes the checkpoint and the one before it."""
    for candidate in (path, previous(path)):
        candidate.unlink(missing_ok=True)
        checksum_file(candidate).unlink(missing_ok=True)
