"""What the parts work on: the prepared data and the SFT checkpoint of the default run, made once by that run."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing heavy on top: processes that a measured side starts import its command, and so this file.
if TYPE_CHECKING:
    from klear_lab.config import Config
    from klear_lab.policy.model import Policy

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Work:
    """Holds where a part works: `folder` has the runs that it starts from, `threads` are those of its process.

    `repetition` counts the times that a side is measured, from 0.
    """

    folder: Path
    threads: int
    small: bool
    repetition: int = 0

    @property
    def runs(self) -> Path:
        """Returns the folder of run folders."""
        return self.folder / "runs"

    def settings(self, *overrides: str, runs: Path | None = None) -> list[str]:
        """Returns the overrides of a run here, in small where that was asked for."""
        sizes = ["scale=smoke"] if self.small else []
        return [*sizes, "logger=none", "progress=off", f"runs_dir={runs or self.runs}", *overrides]

    def command(self, *words: str) -> None:
        """Runs `python -m klear_lab.run` to its end. Raises `RuntimeError` with its output where that fails."""
        run([sys.executable, "-m", "klear_lab.run", *words])

    def prepare(self) -> None:
        """Makes data and checkpoint, unless they are there."""
        if not self.runs.exists():
            self.command(*self.settings("rl.steps=0"))

    @cached_property
    def config(self) -> "Config":
        """Returns the config of a run that starts from them."""
        return self.composed("clip_method=gppo")

    def composed(self, *overrides: str) -> "Config":
        """Returns a run's config."""
        from hydra import compose, initialize_config_dir

        from klear_lab.config import register
        from klear_lab.validation import parse

        register()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return parse(compose("config", overrides=self.settings(*overrides)))

    def stage(self, name: str) -> Path:
        """Returns the folder of a finished stage, "data", "tokens" or "sft"."""
        (found,) = [path for path in (self.runs / "cache").glob(f"{name}-*") if path.is_dir()]
        return found

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Returns the rows of one file of the prepared data."""
        return [json.loads(line) for line in (self.stage("data") / file).read_text().splitlines()]

    def policy(self, config: "Config | None" = None) -> "Policy":
        """Loads the checkpoint, on the CPU, in a process that keeps its memory as a run's does."""
        import torch

        from klear_lab.policy.memory import keep_freed_memory
        from klear_lab.policy.model import load_pretrained

        keep_freed_memory()
        return load_pretrained(self.model, (config or self.config).model, torch.device("cpu"))

    @property
    def model(self) -> Path:
        """Returns the checkpoint's folder."""
        return self.stage("sft") / "model"


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command with this checkout's packages. Raises `RuntimeError` with its output where it fails."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    done = subprocess.run(command, capture_output=True, text=True, env=env, **{"cwd": ROOT, **options})
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-4000:]
        )
    return done
