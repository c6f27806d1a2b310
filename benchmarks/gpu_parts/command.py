"""The command itself: SFT, RL and evaluation in a process of their own, and the same killed and gone on with."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpu_parts.measure import Report
from gpu_parts.sizes import Job
from klear_lab.policy.training_state import checkpoint_step
from klear_lab.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "checkpoint": ["keep=1", "rl_every=1"],
    "data": ["sft_rows=64", "rl_rows=32", "benchmark_rows=4", "filter_rl=false"],
    "sft": ["steps=2", "batch_sequences=8", "log_every=1"],
    "rl": [
        "steps=2",
        "prompts_per_step=8",
        "responses_per_prompt=4",
        "mini_batch_prompts=4",
        "max_response_tokens=64",
        "drop_zero_advantage=false",  # nothing is right, so no group has an advantage
    ],
    "eval": ["samples=1", "every=1000"],  # before the first step and after the last
}
SMALL = ["cpu_threads=1", "rl.prompts_per_step=2", "rl.mini_batch_prompts=1", "rl.max_response_tokens=8"]
SMALL += ["rl.steps=8"]  # they are so quick that a kill would miss the second


def run_command(job: Job, report: Report) -> None:
    """Runs to the end, then again up to a SIGKILL after the first RL step and on to the end; compares the two."""
    with timed(report, "SFT, RL and two evaluations, start to end"):
        start(job, "whole").check()
    whole = folder_of(job.work / "whole")
    for part in ("rollout", "reward", "train"):
        report(f"of its last RL step: {part}", last_line_of_rl(whole)[f"time/{part}_s"], "s")
    killed = start(job, "killed")
    report("killed with SIGKILL", f"after RL step {killed.kill_after_a_step(job.work / 'killed')}")
    with timed(report, "the same command again, to its end"):
        start(job, "killed").check()
    resumed = folder_of(job.work / "killed")
    report("the resumed run", str(resumed.record["status"]))
    name, difference = largest_difference(last_metrics(whole), last_metrics(resumed))
    report(f"largest difference of final metrics ({name})", difference)


@contextmanager
def timed(report: Report, what: str) -> Iterator[None]:
    """Reports the seconds of a block, unless it fails."""
    started = time.perf_counter()
    yield
    report(what, time.perf_counter() - started, "s")


class Started:
    """A started command."""

    def __init__(self, words: list[str], output: Path) -> None:
        """Starts it; what it prints goes to a file."""
        self.output = output
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with output.open("w") as file:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def check(self) -> None:
        """Waits for its end. Raises `RuntimeError` with the last line it printed if it failed."""
        if self.process.wait() != 0:
            raise RuntimeError(f"exit {self.process.returncode}: {last_line(self.output)}")

    def kill_after_a_step(self, runs: Path) -> int:
        """Kills it once its checkpoint has an RL step, which it returns.

        Raises `RuntimeError` if it ends first.
        """
        while self.process.poll() is None:
            with suppress(FileNotFoundError):  # a run that ends removes it
                for checkpoint in runs.glob("*/checkpoint.pt"):
                    if (step := checkpoint_step(checkpoint)) >= 1:
                        self.process.kill()
                        self.process.wait()
                        return step
            time.sleep(0.02)
        raise RuntimeError(f"ended before it was killed: {last_line(self.output)}")


def start(job: Job, runs: str) -> Started:
    """Starts the command with run folders of its own; both runs share one SFT."""
    words = [sys.executable, "-m", "klear_lab.run", "scale=gpu", "logger=none", "progress=off"]
    words += [f"{group}.{key}" for group, keys in SETTINGS.items() for key in keys]
    words += SMALL if job.small else []
    words += [f"device={job.device}", "model=path", f"model.path={job.model}"]
    words += [f"runs_dir={job.work / runs}", f"cache_dir={job.work / 'cache'}"]
    return Started(words, job.work / f"{runs}-{time.time_ns()}.log")


def last_line(file: Path) -> str:
    """Returns the last line of a file that has any."""
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def folder_of(runs: Path) -> RunFolder:
    """Returns the one run folder among `runs`."""
    (record,) = runs.glob("*/run.json")
    return RunFolder(record.parent)


def last_metrics(folder: RunFolder) -> dict[str, Any]:
    """Returns the metrics of the last step, without its seconds."""
    last = last_line_of_rl(folder)
    return {key: value for key, value in last.items() if not key.startswith(("time/", "perf/"))}


def last_line_of_rl(folder: RunFolder) -> dict[str, Any]:
    """Returns all metrics of the last step."""
    return [line for line in folder.metrics() if line["stage"] == "rl"][-1]


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, float]:
    """Returns the metric that differs most, and by how much: infinitely where one run alone has a number."""
    differences = {key: difference(a.get(key), b.get(key)) for key in {*a, *b}}
    name = max(sorted(differences), key=differences.__getitem__)
    return (name, differences[name]) if differences[name] else ("all equal", 0.0)


def difference(a: object, b: object) -> float:
    """Returns how far two values of a metric are apart."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b)
    return 0.0 if a == b else float("inf")
