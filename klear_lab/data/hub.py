"""Rows of a data set on the Hugging Face hub, streamed, through the mapping and the checks of read_rows.py.

Only this file needs the library `datasets`, and imports it when it reads. The library no longer runs loading
scripts: of a repository that has one (BAAI/TACO, codeparrot/apps, LiveCodeBench) `files` names the data files.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from klear_lab.config import ConfigError
from klear_lab.data.columns import checked_columns, used_paths
from klear_lab.data.raw_rows import truncated
from klear_lab.data.read_rows import RowsRead, collect, nearest
from klear_lab.rows import BadRow, RawRow

BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".gz": "json", ".arrow": "arrow"}


def read_hub_rows(
    repository: str,
    columns: Mapping[str, Any] | None,
    kind: str,
    on_bad_row: str = "stop",
    limit: int | None = None,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    files: Sequence[str] | None = None,
    where: str = "columns",
    into: Path | None = None,
) -> RowsRead:
    """Reads the rows of one split; `repository` may also be a folder with the same content.

    `kind`, `columns`, `on_bad_row`, `limit`, `where` and `into` are those of `read_rows`. `files`: names or globs
    inside of the repository to read as `split`. Raises `ConfigError` where `datasets` isn't installed or the data
    can't be had.
    """
    stream = open_stream(repository, config, split, revision, files)
    names = getattr(stream, "column_names", None) or []
    paths = used_paths(checked_columns(columns, kind, where))
    used = {path if path in names else path.partition(".")[0] for path in paths}
    if kept := [name for name in names if name in used]:
        stream = stream.select_columns(kept)  # as of Parquet files, what isn't used doesn't matter
    unread = dict.fromkeys(names)
    return collect(hub_rows(stream, repository, split, unread), columns, kind, on_bad_row, limit, where, into)


def open_stream(
    repository: str, config: str | None, split: str, revision: str | None, files: Sequence[str] | None
) -> Any:
    """Opens a streaming data set of the library `datasets`.

    Raises `ConfigError` where the library isn't installed, and for data that isn't there or can't be reached.
    """
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError as error:
        raise ConfigError(f"{repository}: needs datasets; pip install datasets") from error
    try:
        if files:
            builder = BUILDERS.get(Path(files[0]).suffix)
            if builder is None:
                raise ConfigError(f"files={files[0]}: must end in one of {', '.join(BUILDERS)}")
            root = repository if Path(repository).is_dir() else hub_root(repository, revision)
            for name in files if root == repository else ():
                if not [*Path(root).glob(name)]:
                    raise ConfigError(f"files={name}: no such file in {repository}; {nearest(Path(root, name))}")
            return load_dataset(
                builder, data_files={split: [f"{root}/{name}" for name in files]}, split=split, streaming=True
            )
        return load_dataset(repository, name=config, split=split, revision=revision, streaming=True)
    except ConfigError:
        raise
    except (DatasetNotFoundError, ValueError, RuntimeError) as error:
        asked = f"config={config}, split={split}, revision={revision}"
        hint = "; name its data files with files=[...]" if "scripts are no longer supported" in str(error) else ""
        raise ConfigError(f"{repository} ({asked}): {first_line(error)}{hint}") from error
    except Exception as error:  # whatever the network's libraries raise
        raise unreachable(repository, error) from error


def hub_root(repository: str, revision: str | None) -> str:
    """Returns the URL by which fsspec finds a repository's files."""
    return f"hf://datasets/{repository}" + (f"@{revision}" if revision else "")


def hub_rows(stream: Any, repository: str, split: str, unread: dict[str, None]) -> Iterator[RawRow]:
    """Yields the rows of a stream, with None in columns of `unread` that it leaves out.

    Raises `ConfigError` where the network fails on the way.
    """
    name, rows, number = Path(repository).name, iter(stream), 1
    while True:
        place, row_name = f"{repository} ({split}), row {number}", f"{name}-{split}-{number}"
        content: dict[str, Any] | BadRow
        try:
            content = {**unread, **next(rows)}
        except StopIteration:
            return
        except Exception as error:
            if not is_corrupt(error):
                raise unreachable(repository, error) from error
            yield RawRow(place, row_name, truncated(error))
            return
        yield RawRow(place, row_name, content)
        number += 1


def is_corrupt(error: BaseException | None) -> bool:
    """Tells whether an error comes from a file's content; all others come from the network."""
    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError

    return isinstance(error, pa.ArrowException | ValueError | EOFError | DatasetGenerationError)


def unreachable(repository: str, error: Exception) -> ConfigError:
    """Makes the error for a hub out of reach, or a folder that isn't as `datasets` has it."""
    if Path(repository).is_dir():
        return ConfigError(f"{repository}: can't be read ({type(error).__name__}: {first_line(error)})")
    return ConfigError(
        f"{repository}: the hub can't be reached ({type(error).__name__}: {first_line(error)}); download it and "
        "use data_source=file"
    )


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, "" for none."""
    return (str(error).splitlines() or [""])[0]
