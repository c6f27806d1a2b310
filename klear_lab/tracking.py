"""Where a run's metrics go: metrics.jsonl, wandb, and the console.

wandb's own step counts through both stages, so that metrics they share (`optim/lr`, `loss/sft`) have one axis
that only goes up; metrics of one stage are drawn over `sft/step` or `rl/step`. A run that is taken up again
logs its metrics.jsonl anew, so that an offline `.wandb` file holds the whole run; online, wandb ignores steps it
has seen.
"""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import wandb
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from klear_lab.config import Config, ConfigError
from klear_lab.storage.run_folder import RunFolder

log = logging.getLogger(__name__)

RL_ONLY = ("clip/*", "ratio/*", "policy/*", "loss/policy", "reward/*", "rollout/*", "eval/*")
# What wandb gets of run.json, so that the analysis can read runs from there.
RECORDED = ("arm", "sweeps", "seed", "git_commit", "versions", "hardware", "command")
SECONDS_BETWEEN_LINES = 10.0
LONGEST_NAME, LONGEST_TAG = 128, 64  # characters that wandb takes
# What the console shows of a step: metric, label, format.
SHOWN = (
    ("reward/accuracy", "accuracy", "{:.2f}"),
    ("policy/entropy", "entropy", "{:.3f}"),
    ("clip/low_fraction", "clip low", "{:.2%}"),
    ("clip/high_fraction", "high", "{:.2%}"),
    ("loss/sft", "SFT loss", "{:.3f}"),
)


class Tracker:
    """Open for the length of a run; use as a context manager."""

    def __init__(self, folder: RunFolder, config: Config, wandb_config: Any, live: bool) -> None:
        """`wandb_config` is the resolved config; `live` chooses moving bars over lines."""
        self.folder = folder
        self.label = run_label(folder.record["arm"], config.seed)
        self.rl_offset = config.sft.steps + 1
        self.mode = "off" if config.progress == "off" else "live" if live else "lines"
        self.run = start_wandb(folder, config, self.label, wandb_config)
        probes = {line["step"]: line for line in folder.lines("probes.jsonl")}
        for line in folder.metrics():
            self.send_to_wandb(line, probes.get(line["step"]) if line["stage"] == "rl" else None)
        self.shown: dict[str, Any] = {}
        self.last_line, self.started, self.done = 0.0, 0.0, 0

    def __enter__(self) -> "Tracker":
        """The tracker itself."""
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Ends the wandb run; a failed run is marked as one."""
        if self.run is not None:
            self.run.finish(exit_code=0 if kind is None else 1)

    def log(self, stage: str, step: int, metrics: dict[str, Any], probes: dict[str, Any] | None = None) -> None:
        """One step's metrics, to every place; `probes` (a line of probes.jsonl) are stored already."""
        line = {"stage": stage, "step": step, **metrics}
        self.folder.append_line("metrics.jsonl", line)
        self.send_to_wandb(line, probes)

    def send_to_wandb(self, line: dict[str, Any], probes: dict[str, Any] | None) -> None:
        """A line of metrics.jsonl as a history row; wandb has no null, so those are left out."""
        if self.run is None:
            return
        stage, step = line["stage"], line["step"]
        known = {k: v for k, v in line.items() if v is not None and k not in ("stage", "step")}
        known |= {f"{name}_histogram": as_wandb(h) for name, h in (probes or {}).get("histograms", {}).items()}
        self.run.log({f"{stage}/step": step, **known}, step=step if stage == "sft" else self.rl_offset + step)

    def log_most_clipped(self, step: int) -> None:
        """The tokens that were clipped most in all steps, as a table in the row of the last one in wandb."""
        if self.run is None:
            return
        totals: Counter[tuple[str, str]] = Counter()
        for line in self.folder.lines("probes.jsonl"):
            for region, tokens in line["most_clipped"].items():
                totals.update({(region, token["text"]): token["count"] for token in tokens})
        rows: list[Any] = [[region, text, count] for (region, text), count in totals.most_common()]
        table = wandb.Table(columns=["region", "token", "count"], data=rows)
        self.run.log({"clip/tokens": table}, step=self.rl_offset + step)

    @contextmanager
    def stage(self, name: str, total: int, done: int) -> Iterator[None]:
        """Shows progress of a stage of `total` steps while open."""
        started = time.monotonic()
        self.shown, self.last_line, self.started, self.done = {}, started, started, done
        if self.mode == "live":
            columns = (
                TextColumn("[bold]{task.fields[label]}[/] {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.bar, self.numbers = Progress(*columns), Text()
            self.bar.add_task(name, total=total, completed=done, label=self.label)
            with Live(Group(self.bar, self.numbers), console=Console(stderr=True)):
                yield
        else:
            yield
        if self.mode != "off":
            log.info("[%s] %s: %d steps in %.0f s", self.label, name, total - done, time.monotonic() - started)

    def show(self, name: str, step: int, total: int, metrics: dict[str, Any]) -> None:
        """Moves the display on to a finished step."""
        self.shown |= {key: value for key, value in metrics.items() if value is not None}
        text = describe(self.shown)
        if self.mode == "live":
            self.bar.update(self.bar.task_ids[0], completed=step)
            self.numbers.plain = text
        elif self.mode == "lines" and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            per_step = (self.last_line - self.started) / max(1, step - self.done)
            left = timedelta(seconds=round(per_step * (total - step)))
            log.info("[%s] %s %d/%d  %s  left %s", self.label, name, step, total, text, left)


def describe(metrics: dict[str, Any]) -> str:
    """The few numbers worth watching, and the latest scores."""
    words = [f"{label} {form.format(metrics[key])}" for key, label, form in SHOWN if key in metrics]
    scores = [f"{key[5:]} {value:.2f}" for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(words + scores)


def final_scores(lines: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each `eval/...` metric."""
    return {key: value for line in lines for key, value in line.items() if key.startswith("eval/")}


def run_label(arm: dict[str, Any], seed: int | None) -> str:
    """How a run is called on the console and in wandb: its arm and seed, e.g. "gppo, alpha=0.1 seed 0"."""
    short = [key.rpartition(".")[2] for key in arm]
    words = []
    for key, name in zip(arm, short, strict=True):
        value = arm[key] if isinstance(arm[key], str) else json.dumps(arm[key])
        name = key if name == "seed" or short.count(name) > 1 else name
        # A group's option speaks for itself, a number or a switch doesn't.
        words.append(value if "." not in key and isinstance(arm[key], str) else f"{name}={value}")
    return ", ".join(words or ["run"]) + ("" if seed is None else f" seed {seed}")


def cut(text: str, most: int) -> str:
    """A name of at most `most` characters. A cut one ends in a hash of the whole, so that two stay two."""
    return text if len(text) <= most else f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def as_wandb(histogram: dict[str, Any]) -> wandb.Histogram:
    """A histogram of probes.jsonl as wandb draws it."""
    counts = histogram["counts"]
    return wandb.Histogram(
        np_histogram=(counts, np.linspace(histogram["low"], histogram["high"], len(counts) + 1))
    )


def start_wandb(folder: RunFolder, config: Config, label: str, wandb_config: Any) -> Any:
    """The wandb run, or None with logger=none. Runs of a sweep share a group, arms are tags."""
    logger = config.logger
    if logger.wandb_mode == "disabled":
        return None
    if logger.wandb_mode == "offline":
        shutil.rmtree(folder.path / "wandb", ignore_errors=True)  # an earlier attempt's, logged anew
    record = folder.record
    arm_tags = [f"{key}={value}" for key, value in record["arm"].items()]
    try:
        run = wandb.init(
            dir=folder.path,
            mode="offline" if logger.wandb_mode == "offline" else "online",
            id=record["run_id"],
            resume="allow" if logger.wandb_mode == "online" else None,
            project=logger.project,
            entity=logger.entity,
            name=cut(label, LONGEST_NAME),
            group=record["sweep"] and cut(record["sweep"], LONGEST_NAME),
            tags=[cut(tag, LONGEST_TAG) for tag in (*logger.tags, config.scale, *arm_tags) if tag],
            config={**wandb_config, "klear_lab": {key: record.get(key) for key in RECORDED}},
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.errors.UsageError as error:
        raise ConfigError(f"logger=wandb: {error} Or choose logger=offline, and `wandb sync` later") from error
    run.define_metric("sft/step", hidden=True)
    run.define_metric("rl/step", hidden=True)
    for pattern in RL_ONLY:
        run.define_metric(pattern, step_metric="rl/step")
    return run
