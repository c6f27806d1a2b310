"""Says where output goes, one meaning for every command, and writes it whole or not at all.

A name with one of ENDINGS is a file, unless a folder of that name is there. Anything else is a folder, into which
files go under their own names. A file's folder must exist, a folder is made.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from analysis.errors import OutputError

ENDINGS = ("png", "svg", "pdf", "md", "tex", "csv", "json", "html")
# These mean a file too, though nothing here writes such: a folder of that name would surprise.
OTHER_ENDINGS = (
    "jpg",
    "jpeg",
    "gif",
    "eps",
    "ps",
    "tif",
    "tiff",
    "webp",
    "bmp",
    "htm",
    "txt",
    "tsv",
    "jsonl",
    "xlsx",
)
OUT_HELP = "a name that ends in %s is a file, anything else, or a folder that is there, a folder for %s"
HOUR = 3600.0


def out_help(endings: Iterable[str], name: str) -> str:
    """Returns the help of an --out that takes a file or a folder; `name`: of the file in the folder."""
    return OUT_HELP % (", ".join(f".{ending}" for ending in endings), name)


def is_file_name(out: Path) -> bool:
    """Tells whether a path means a file: by its ending, or because a device or pipe stands there."""
    if out.is_dir():
        return False
    return out.suffix[1:].lower() in (*ENDINGS, *OTHER_ENDINGS) or (out.exists() and not out.is_file())


def file_for(out: Path | None, name: str, format_: str) -> Path:
    """Returns the file that `out` means for an output of this name and format; makes a folder that it means.

    Raises OutputError.
    """
    if out is not None and is_file_name(out):
        return out
    folder = Path() if out is None else out
    make_folder(folder)
    return folder / f"{name}.{format_}"


def format_for(out: Path | None, asked: str | None, formats: Mapping[str, str], default: str, what: str) -> str:
    """Returns the ending to write: of the format asked for, else of the file's name, else `default`.

    formats: name of a format -> its ending. Raises OutputError for a format that `what` doesn't come in, and where
    name and format contradict each other.
    """
    known = f"one of {', '.join(formats)}"
    if asked is not None and asked not in formats:
        raise OutputError(f"--format {asked}: {what}; {known}")
    if out is None or not is_file_name(out) or not out.suffix:
        return formats[asked or default]
    ending = out.suffix[1:].lower()
    if ending not in formats.values():
        raise OutputError(f"--out {out}: ends in none of .{', .'.join(formats.values())}; {what}; {known}")
    if asked is not None and formats[asked] != ending:
        raise OutputError(f"--format {asked} contradicts --out {out}, which ends in .{ending}")
    return ending


def folder_for(out: Path, what: str) -> Path:
    """Returns `out`, which must mean a folder. Raises OutputError for a file's name."""
    if is_file_name(out):
        raise OutputError(f"--out {out}: names a file, and {what} is a folder of files")
    return out


def check_folder(folder: Path) -> None:
    """Checks that a folder can be written to, or made. Raises OutputError."""
    with explained(folder):
        there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
        if os.path.lexists(there) and not there.is_dir():
            raise OutputError(f"{folder}: can't be written ({there} is no folder, and one is needed)")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"{folder}: can't be written ({there} is read-only)")


def make_folder(folder: Path) -> None:
    """Makes a folder with its parents, and checks that it can be written to. Raises OutputError."""
    check_folder(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_out(out: Path) -> None:
    """Checks that the file or the folder that `out` means can be written, or made. Raises OutputError."""
    if is_file_name(out):
        check_file(out)
    else:
        check_folder(out)


def check_file(path: Path) -> None:
    """Checks that a file can be written. Raises OutputError."""
    with explained(path):
        if path.is_dir():
            raise OutputError(f"{path}: can't be written (it is a folder)")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: can't be written (there is no folder {path.parent})")
        if path.is_file() and not os.access(path, os.W_OK):
            raise OutputError(f"{path}: can't be written (the file is read-only)")


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole: a kill or an error leaves the old one, or none. Raises OutputError."""
    check_file(path)
    with explained(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a device or a pipe
            return
        target = path.resolve()  # a link stays one
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.partial-")
        temporary = Path(name)
        try:
            os.close(descriptor)
            temporary.write_bytes(content)
            temporary.chmod(target.stat().st_mode if target.exists() else 0o666 & ~umask())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def fresh_folder(out: Path, last: str = "", stale: Iterable[str] = ()) -> Iterator[Path]:
    """Yields a fresh folder; once all is written its files replace those of the same names in `out`.

    Until then `out` stays as it was, also after a kill or an error. `last` is the name of the file that is
    replaced last. stale: names to remove from `out` where the fresh folder has none of them. Other files stay.
    Raises OutputError.
    """
    absent = [path for path in (out, *out.parents) if not path.exists()]
    make_folder(out)
    written = False
    with explained(out):
        fresh = beside(out.resolve())
        try:
            yield fresh
            files = sorted(fresh.iterdir(), key=lambda file: (file.name == last, file.name))
            if folders := [file.name for file in files if (out / file.name).is_dir()]:
                raise OutputError(f"{out / folders[0]}: can't be written (it is a folder)")
            with uninterrupted():
                for file in files:
                    file.replace(out / file.name)
                for name in {*stale} - {file.name for file in files}:
                    (out / name).unlink(missing_ok=True)
            written = True
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            for folder in () if written else absent:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def beside(folder: Path) -> Path:
    """Makes a fresh folder on the same file system: next to the folder, else in it; removes what a kill left."""
    prefix = f".{folder.name[:50]}.partial-"
    for left in (*folder.parent.glob(f"{prefix}*"), *folder.glob(f"{prefix}*")):
        if time.time() - left.stat().st_mtime > HOUR:  # a younger one may be another process's
            shutil.rmtree(left, ignore_errors=True)
    same = folder.stat().st_dev == folder.parent.stat().st_dev
    where = folder.parent if same and os.access(folder.parent, os.W_OK | os.X_OK) else folder
    return Path(tempfile.mkdtemp(dir=where, prefix=prefix))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keeps Ctrl-C and SIGTERM waiting while open."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what the system says of writing `path` into OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error


def umask() -> int:
    """Returns the permissions that new files don't get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
