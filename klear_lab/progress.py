"""Shows on the console how far a stage of a run is: moving bars, or a line now and then, with the time left."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from klear_lab import metrics as metrics_table

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Shows one run's progress; `mode` is off, live or lines."""

    def __init__(self, label: str, mode: str) -> None:
        """`label` is what the console calls the run."""
        self.label, self.mode = label, mode
        self.evaluation_seconds: list[float] = []  # of all evaluations, those of earlier attempts too
        self.shown: dict[str, Any] = {}

    @contextmanager
    def stage(
        self, name: str, total: int, done: int, evaluate_every: int | None = None, unit: str = "steps"
    ) -> Iterator[None]:
        """Shows progress of a stage of `total` steps while open, which evaluates so often and at its end."""
        self.started = self.last_line = time.monotonic()
        self.shown, self.done, self.evaluate_every = {}, done, evaluate_every
        self.evaluated_before = len(self.evaluation_seconds)
        if self.mode == "live":
            columns = (
                TextColumn("[bold]{task.fields[label]}[/] {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self.bar, self.numbers = Progress(*columns), Text()
            self.bar.add_task(name, total=total, completed=done, label=self.label, left="")
            with Live(Group(self.bar, self.numbers), console=Console(stderr=True)):
                yield
        else:
            yield
        if self.mode != "off":
            seconds = time.monotonic() - self.started
            log.info("[%s] %s: %d %s in %.0f s", self.label, name, total - done, unit, seconds)

    def show(self, name: str, step: int, total: int, metrics: dict[str, Any]) -> None:
        """Moves the display on to a finished step."""
        self.shown |= {key: value for key, value in metrics.items() if value is not None}
        text = describe(self.shown)
        if self.mode == "live":
            self.bar.update(self.bar.task_ids[0], completed=step, left=f"left {self.time_left(step, total)}")
            self.numbers.plain = text
        elif self.mode == "lines" and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = self.time_left(step, total)
            log.info("[%s] %s %d/%d  %s  left %s", self.label, name, step, total, text, left)

    def time_left(self, step: int, total: int) -> timedelta:
        """Returns the time that the stage still takes, by this attempt's steps and by all evaluations."""
        evaluating = sum(self.evaluation_seconds[self.evaluated_before :])
        per_step = (time.monotonic() - self.started - evaluating) / max(1, step - self.done)
        per_evaluation = sum(self.evaluation_seconds) / max(1, len(self.evaluation_seconds))
        to_come = evaluations_to_come(step, total, self.evaluate_every)
        return timedelta(seconds=round(per_step * (total - step) + per_evaluation * to_come))


def evaluations_to_come(step: int, total: int, every: int | None) -> int:
    """Returns how many of the steps after `step` end in an evaluation: every so many, and the last."""
    if every is None or step >= total:
        return 0
    return total // every - step // every + (total % every > 0)


def describe(metrics: dict[str, Any]) -> str:
    """Returns the few numbers worth watching and the latest scores, in words."""
    words = [form.format(metrics[key]) for key, form in metrics_table.CONSOLE.items() if key in metrics]
    scores = [f"{key[5:]} {value:.2f}" for key, value in metrics.items() if key.startswith("eval/")]
    return "  ".join(words + scores)
