"""What launchers need: a package each, and on a machine with several GPUs a GPU for each of their processes."""

import getpass
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

# The extra of klear_lab that brings a launcher; the others come with klear_lab.
EXTRAS = {"submitit_local": "cluster", "submitit_slurm": "cluster", "ray": "ray", "ray_aws": "ray"}
# No extra can have it, since it declares an older cloudpickle than joblib needs, though it runs with joblib's.
RAY_PLUGIN = "hydra-ray-launcher==1.2.2"
# Their processes start with all GPUs of the machine in sight; Slurm and Ray show each its own.
SHARES_GPUS = ("joblib", "submitit_local")

_held: list[FileLock] = []  # a lock ends with its object, and this process keeps its GPU while it lives


def how_to_install(missing: str | None) -> str | None:
    """Says what to install where Hydra doesn't find a launcher's config; None for any other config."""
    name = (missing or "").removeprefix("hydra/launcher/").removesuffix(".yaml")
    if not (missing or "").startswith("hydra/launcher/") or name not in EXTRAS:
        return None
    steps = f"pip install -e '.[{EXTRAS[name]}]'"
    if EXTRAS[name] == "ray":
        steps += f", then pip install --no-deps {RAY_PLUGIN}"
    return f"launcher={name}: its package isn't installed here; in the checkout, {steps}"


def lost_process(error: Exception) -> str | None:
    """Says in a line that a launcher lost a process with an arm; None for an error of no launcher.

    An arm's own errors never get this far: its process writes them down as the arm's outcome.
    """
    if type(error).__module__.split(".")[0] not in ("joblib", "submitit", "ray"):
        return None
    why = next(line for line in [*str(error).splitlines(), type(error).__name__] if line.strip())
    return f"a process that ran an arm was lost ({why}); the same command goes on from the last checkpoints"


def take_gpu(device: str) -> None:
    """Lets this process see one GPU of several: one that no other process has, else one that the fewest have.

    CUDA reads CUDA_VISIBLE_DEVICES once, so this must come before its first use; a later call changes nothing.
    """
    if _held or device not in ("auto", "cuda"):
        return
    gpus = visible_gpus()
    if len(gpus) < 2:
        return
    gpu, lock = free_gpu(gpus, Path(tempfile.gettempdir()) / f"klear_lab-{getpass.getuser()}")
    _held.append(lock)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def visible_gpus() -> list[str]:
    """Names the GPUs that this process sees, as CUDA_VISIBLE_DEVICES does."""
    import torch  # not above: messages about a config needn't wait for it

    count = torch.cuda.device_count()  # asks the driver without starting CUDA
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return (named or [str(number) for number in range(count)])[:count]


def free_gpu(gpus: Sequence[str], folder: Path) -> tuple[str, FileLock]:
    """Returns the first GPU with the fewest processes, and the lock that stands for this process's share of it.

    The locks are files of this machine; the system frees those of a process that was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for share in itertools.count():
        for gpu in gpus:
            lock = FileLock(folder / f"gpu-{gpu}.{share}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return gpu, lock
    raise AssertionError("there is always another share")
