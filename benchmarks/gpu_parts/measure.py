"""What a part reports, and how it measures seconds and memory."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

GB = 1e9


class Report:
    """Collects a part's rows in a file, one at a time, so that a part that is cut keeps what it had measured."""

    def __init__(self, path: Path) -> None:
        """Takes the file to append to."""
        self.path = path

    def __call__(self, what: str, value: float | str | None, unit: str = "", at_most: float | None = None) -> None:
        """Adds a row; a `value` of None says that this device has no such number, a text that there is none."""
        row = {"what": what, "value": value, "unit": unit, "at_most": at_most}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turns what fails within into a row with the reason, and lets the part go on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self(what, reason(error))
        empty_cache()


def reason(error: BaseException) -> str:
    """Returns an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def empty_cache() -> None:
    """Gives memory that no tensor holds back to the GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass
class Measured:
    """Holds the seconds of a block, and the most bytes that all tensors held in it; None on a CPU."""

    seconds: float = 0.0
    peak: int | None = None

    @property
    def peak_gb(self) -> float | None:
        """Returns the peak in GB of 10^9 bytes."""
        return None if self.peak is None else self.peak / GB


@contextmanager
def measured(device: str) -> Iterator[Measured]:
    """Measures a block, on a GPU with all the work that the block has started there."""
    found = Measured()
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
        found.peak = torch.cuda.max_memory_allocated()
    found.seconds = time.perf_counter() - started
