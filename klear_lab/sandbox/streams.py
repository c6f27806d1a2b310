"""The files behind a program's standard streams, inside the sandbox: memory, with a name where a folder is given.

A name lets a program open /dev/stdin and its kin, which there is no /proc for: bubblewrap's file system links them
to the folder (isolation.py). Elsewhere the machine's own /proc finds the memory. worker.py fills and reads it.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

from child import ERRORS, INPUT, OUTPUT, VALUE

MESSAGE_BYTES = 2000


def open_streams(folder: str | None) -> None:
    """New ones for each child: flags that a program sets on its own stay with them.

    `folder`: where /dev/stdin and its kin point to, so that a program can open them by name.
    """
    for name, descriptor in enumerate((INPUT, OUTPUT, ERRORS, VALUE)):
        memory = (
            os.memfd_create("stream") if folder is None or descriptor == VALUE else new_file(folder, str(name))
        )
        os.dup2(memory, descriptor)
        os.close(memory)


def new_file(folder: str, name: str) -> int:
    """A file in place of the last child's, or one without a name where that child left something else there."""
    path = Path(folder, name)
    try:
        path.unlink(missing_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return os.memfd_create("stream")


def remove_streams(folder: str | None) -> None:
    """Leaves nothing of a program behind. What can't be removed, `contents_of` the folder shows."""
    if folder is not None:
        for name in ("0", "1", "2"):
            with contextlib.suppress(OSError):
                Path(folder, name).unlink()


def hand_over(stdin: str) -> None:
    """Fills the input and empties what the last test wrote."""
    for descriptor in (INPUT, OUTPUT, ERRORS, VALUE):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
    content = memoryview(stdin.encode("utf-8", "surrogatepass"))
    while content:
        content = content[os.write(INPUT, content) :]
    os.lseek(INPUT, 0, os.SEEK_SET)


def what_was_written() -> dict[str, Any]:
    """What the test wrote: its output and its call's value whole, and the end of its standard error."""
    sizes = {descriptor: os.fstat(descriptor).st_size for descriptor in (OUTPUT, VALUE, ERRORS)}
    return {
        "output": os.pread(OUTPUT, sizes[OUTPUT], 0),
        "value": os.pread(VALUE, sizes[VALUE], 0),
        "message": os.pread(ERRORS, MESSAGE_BYTES, max(0, sizes[ERRORS] - MESSAGE_BYTES)).decode(
            "utf-8", "replace"
        ),
    }


def contents_of(folder: str | None) -> Any:
    """What is in a folder, and who may use it; None where that can't be seen."""
    if folder is None:
        return None
    try:
        return (
            sorted(path.name for path in Path(folder).iterdir()),
            Path(folder).stat().st_mode,
            os.listxattr(folder),
        )
    except OSError:
        return None
