"""TRL's checkpoints in a run folder, and which of them are whole.

`trl/step_<RL step>/checkpoint-<updates>/` is what TRL writes, in many files and not at once; `complete.json`
comes last, beside it, with a checksum of each file. A folder without it, or with another content, was cut short by
a kill or damaged since, and the one before it counts.
"""

import json
import logging
import shutil
from pathlib import Path

from klear_lab.policy.training_state import checksum_of
from klear_lab.storage.files import replace_file, sync_tree

log = logging.getLogger(__name__)

FOLDER, MARK = "trl", "complete.json"


def step_folder(output: Path, step: int) -> Path:
    """Returns where an RL step's checkpoint goes."""
    return output / f"step_{step:06d}"


def complete(folder: Path, step: int, keep: int) -> None:
    """Marks a step's checkpoint as whole, and removes all but the `keep` newest."""
    sync_tree(folder)
    files = {str(path.relative_to(folder)): checksum_of(path) for path in inside(folder)}
    replace_file(folder / MARK, json.dumps({"step": step, "files": files}))
    made = sorted(folder.parent.glob("step_*"))
    for older in made[: made.index(folder)][: -(keep - 1) or None]:
        shutil.rmtree(older)


def step_of(checkpoint: Path) -> int:
    """Returns the RL step of a checkpoint that `find_checkpoint` found."""
    return int(checkpoint.parent.name.rpartition("_")[2])


def inside(folder: Path) -> list[Path]:
    """Lists a checkpoint's files."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARK)


def find_checkpoint(run_folder: Path) -> tuple[Path, int] | None:
    """Returns the newest whole checkpoint, for TRL to go on from, and its RL step; None without one."""
    for folder in sorted((run_folder / FOLDER).glob("step_*"), reverse=True):
        if (step := whole_step(folder)) is not None:
            (checkpoint,) = folder.glob("checkpoint-*")
            return checkpoint, step
        log.warning("%s: cut short or damaged; looking for the one before it", folder)
    return None


def whole_step(folder: Path) -> int | None:
    """Returns the RL step of a checkpoint that has all of its files as they were written; else None."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        files = {str(path.relative_to(folder)): checksum_of(path) for path in inside(folder)}
        return int(mark["step"]) if files == mark["files"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
