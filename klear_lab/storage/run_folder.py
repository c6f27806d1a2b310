"""The run folder `runs/<run_id>/`: who writes what, and how a kill at any moment leaves each file whole.

config.yaml           resolved config, once
run.json              identity, status, stages, environment; replaced whole
metrics.jsonl         one line a step, appended in one write
evaluations.parquet   one row a sample; replaced whole
probes.jsonl          one line an RL step: histograms, most clipped tokens
samples.jsonl         one line a response: a few of some RL steps, as text
answers.jsonl         one line a response of the last evaluation, as text: a few to each prompt; replaced whole
rollouts/             token records of some steps, and mini-batches whose update was not applied
checkpoint.pt         while RL runs, with the one before it (trl/ with engine=trl); model/ once it has finished
wandb/                what wandb wrote
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klear_lab.config import Config
from klear_lab.storage.files import (
    StorageError,
    append_whole,
    explained,
    forget_checkpoints,
    replace_file,
    replacing,
    vanished,
)

if TYPE_CHECKING:  # a finished run is looked at without them, which take seconds to import
    import pandas as pd
    import torch

DAMAGED = "damaged; delete the folder {}, and the same command makes the run anew"
STATUSES = ("running", "finished", "failed")
PACKAGES = ("torch", "transformers", "hydra-core", "omegaconf", "wandb", "pandas", "numpy")


def whole_lines(path: Path) -> list[str]:
    """Returns the complete lines of a file whose last one a kill may have cut short; none without a file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [f"{line}\n" for line in text.split("\n")[:-1]]  # a response may hold other ends of lines


class RunFolder:
    """Reads and writes one run's files."""

    def __init__(self, path: Path) -> None:
        """`path` needn't exist yet."""
        self.path = path
        self.attempt: str | None = None

    @classmethod
    def of(cls, config: Config, run_id: str) -> "RunFolder":
        """Returns the folder of a run, under the config's `runs_dir`."""
        return cls(Path(config.runs_dir).expanduser().absolute() / run_id)

    @property
    def lock(self) -> Path:
        """Returns the file that the one process working on the run holds locked."""
        return self.path / ".lock"

    def is_finished(self) -> bool:
        """Tells whether the record says that the run is finished; a damaged one stops its own run, not others."""
        try:
            return self.record.get("status") == "finished"
        except StorageError:
            return False

    @property
    def record(self) -> dict[str, Any]:
        """Reads run.json; empty before the first start. Raises `StorageError` for a damaged file."""
        file = self.path / "run.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except (ValueError, RecursionError) as error:
            raise self.damaged("run.json", "isn't JSON") from error
        except OSError as error:
            raise StorageError(
                f"{file}: can't be read ({error.strerror}); put that right, and start again"
            ) from error
        if not isinstance(found, dict):
            raise self.damaged("run.json", "isn't one object")
        return found

    def damaged(self, name: str, how: str) -> StorageError:
        """Describes a file that can't be gone on from, and what to do."""
        return StorageError(f"{self.path / name}: {how}; {DAMAGED.format(self.path)}")

    def check_record(self, run_id: str) -> None:
        """Raises `StorageError` for a run.json that isn't this run's, or lacks what every attempt writes."""
        record = self.record
        if not record:
            if (self.path / "run.json").exists():
                raise self.damaged("run.json", "says nothing")
            return
        if record.get("run_id") != run_id:
            raise self.damaged("run.json", f"run_id is {json.dumps(record.get('run_id'))}, not {run_id}")
        if record.get("status") not in STATUSES:
            status = json.dumps(record.get("status"))
            raise self.damaged("run.json", f"status is {status}, none of {', '.join(STATUSES)}")
        for key in ("sweeps", "stages", "inputs"):
            if not isinstance(record.get(key, {}), dict):
                raise self.damaged("run.json", f"{key} is {json.dumps(record[key])[:40]}, not an object")
        if not isinstance(record.get("inputs", {}).get("stage_versions", {}), dict):
            raise self.damaged("run.json", "stage_versions isn't an object")

    def has_results(self) -> bool:
        """Tells whether an attempt left anything that took it time."""
        names = ("metrics.jsonl", "evaluations.parquet", "checkpoint.pt", "checkpoint.previous.pt", "trl")
        return any((self.path / name).exists() for name in names)

    def check_ours(self) -> None:
        """Raises `StorageError` where the folder isn't the one that this attempt started in.

        Removed under a run, and perhaps made anew by another process, it must not get half a run's files.
        """
        if self.attempt is not None and self.record.get("attempt") != self.attempt:
            raise StorageError(vanished(self.path))

    def update_record(self, **changes: Any) -> None:
        """Replaces some fields of run.json."""
        self.check_ours()
        replace_file(self.path / "run.json", json.dumps({**self.record, **changes}, indent=2) + "\n")

    def join_sweep(self, run_id: str, seed: int, sweep: str | None, arm: dict[str, Any]) -> None:
        """Records who the run is and which sweep it joins; of several sweeps the first stays its `sweep`."""
        sweeps = self.record.get("sweeps", {})
        if sweep is not None:
            sweeps[sweep] = arm
        first = next(iter(sweeps), None)
        status = "finished" if self.record.get("status") == "finished" else "running"
        self.update_record(
            run_id=run_id, status=status, sweep=first, arm=sweeps.get(first, {}), sweeps=sweeps, seed=seed
        )

    def start(self, config_yaml: str, device: "torch.device") -> None:
        """Records what this attempt is made with; stages that an earlier one finished stay recorded."""
        replace_file(self.path / "config.yaml", config_yaml)
        attempt = uuid.uuid4().hex[:12]
        self.update_record(
            attempt=attempt,
            stages=self.record.get("stages", {}),
            git_commit=git_commit(),
            versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            hardware=hardware(device),
            command=["python", "-m", "klear_lab.run", *sys.argv[1:]],
            started=now(),
            finished=None,
            error=None,
        )
        self.attempt = attempt

    def finish_stage(self, stage: str, seconds: float, cache_key: str, from_cache: bool) -> None:
        """Records what a stage took and where its result came from."""
        self.check_ours()
        done = {"seconds": round(seconds, 3), "cache_key": cache_key, "from_cache": from_cache}
        self.update_record(stages={**self.record["stages"], stage: done})

    def append_line(self, name: str, line: dict[str, Any]) -> None:
        """Appends one line in one write, which a kill leaves whole or not at all."""
        self.check_ours()
        append_whole(self.path / name, json.dumps(line))

    def write_lines(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        """Replaces a file of JSON lines whole."""
        self.check_ours()
        replace_file(self.path / name, "".join(json.dumps(line) + "\n" for line in lines))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Reads all whole lines of a file. Raises `StorageError` for one that isn't a step's JSON object."""
        found: list[dict[str, Any]] = []
        staged = name == "metrics.jsonl"
        try:
            for text in whole_lines(self.path / name):
                line = json.loads(text)
                if type(line["step"]) is not int or (staged and line["stage"] not in ("sft", "rl")):
                    raise ValueError("neither a step of SFT nor of RL")
                found.append(line)
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            raise StorageError(f"{self.path / name}:{len(found) + 1}: {DAMAGED.format(self.path)}") from error
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """Reads all whole lines of metrics.jsonl."""
        return self.lines("metrics.jsonl")

    def rewind(self, rl_step: int) -> None:
        """Removes what was written after a checkpoint, since the run will write it again.

        Raises `StorageError` where something before it is missing, which nothing would write again.
        """
        file = self.path / "metrics.jsonl"
        steps = [line["step"] for line in self.metrics() if line.get("stage") == "rl" and line["step"] <= rl_step]
        if steps != [*range(rl_step + 1)]:
            lost = sorted({*range(rl_step + 1)} - {*steps}) or "none, but some twice"
            raise StorageError(f"{file}: RL steps missing: {lost}; {DAMAGED.format(self.path)}")
        if not (self.path / "evaluations.parquet").exists():
            raise StorageError(f"{self.path / 'evaluations.parquet'}: missing; {DAMAGED.format(self.path)}")
        for name in ("metrics.jsonl", "probes.jsonl", "samples.jsonl"):
            kept = [line for line in self.lines(name) if line.get("stage") == "sft" or line["step"] <= rl_step]
            self.write_lines(name, kept)
        for file in (self.path / "rollouts").glob("*.parquet"):
            number = file.stem.rpartition("_")[2]
            if number.isdecimal() and int(number) > rl_step:  # other files there are a person's own
                file.unlink()
        evaluations = self.evaluations()
        if evaluations is not None and not evaluations.empty:
            self.write_evaluations([evaluations[evaluations["step"] <= rl_step]])

    def clear(self) -> None:
        """Removes all that an attempt wrote but its record."""
        self.update_record(stages={}, warnings=[])
        names = (
            *("metrics.jsonl", "probes.jsonl", "samples.jsonl", "answers.jsonl"),
            *("evaluations.parquet", "nonfinite_sft_*.parquet"),
        )
        for file in (file for name in names for file in self.path.glob(name)):
            file.unlink()
        forget_checkpoints(self.path / "checkpoint.pt")
        for name in ("rollouts", "wandb", "trl"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def evaluations(self) -> "pd.DataFrame | None":
        """Reads evaluations.parquet; None before the first evaluation. Raises `StorageError` for damage."""
        import pandas as pd
        import pyarrow as pa

        file = self.path / "evaluations.parquet"
        if file.is_dir():  # pandas takes one for a table in parts
            raise self.damaged(file.name, "is a folder")
        try:
            found = pd.read_parquet(file) if file.exists() else None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StorageError(f"{file}: {DAMAGED.format(self.path)}") from error
        if found is None or found.empty:  # as without a benchmark
            return found
        if "step" not in found or not pd.api.types.is_integer_dtype(found["step"]):
            raise self.damaged(file.name, "has no column of steps")
        return found

    def add_evaluations(self, rows: "pd.DataFrame") -> None:
        """Adds the samples of one evaluation."""
        before = self.evaluations()
        self.write_evaluations([rows] if before is None else [before, rows])

    def write_evaluations(self, frames: "Iterable[pd.DataFrame]") -> None:
        """Replaces evaluations.parquet."""
        import pandas as pd

        self.write_frame(pd.concat(list(frames), ignore_index=True), "evaluations.parquet")

    def write_frame(self, frame: "pd.DataFrame", name: str) -> Path:
        """Replaces a Parquet file whole; returns it."""
        self.check_ours()
        path = self.path / name
        if path.parent != self.path:  # a run's own folder that has vanished isn't made again half empty
            with explained(path):
                path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            frame.to_parquet(temporary)
        return path


def now() -> str:
    """Returns the time now in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """Returns the commit of this code, with "-dirty" where tracked files were changed; None outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def hardware(device: "torch.device") -> dict[str, Any]:
    """Describes the device, processor and threads of this process."""
    import torch

    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cpu_count": os.cpu_count(),
        "cpu_threads": torch.get_num_threads(),
    }
