"""Adds batches of seeds to claims until each is settled or a budget is spent.

Nothing is remembered but the runs themselves and settled.json: what a killed command would have done next follows
from the runs that are there, and finished ones are never run again. So the same command ends in the same verdict.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.claims import always_valid
from analysis.claims.claims import CLAIMS
from analysis.claims.judge import sweeps_at_hand
from analysis.claims.multiple_testing import INCONCLUSIVE, NOT_RUN
from analysis.claims.regime import AtHand
from analysis.claims.settled import NAME, Settled, add_settled, read_settled
from analysis.draw.cells import number_cell
from analysis.errors import RunFolderError
from analysis.runs.damage import name_damaged, without_damaged
from analysis.runs.frames import RunFrames, load_runs
from analysis.settle.first_look import same_runs
from analysis.settle.outlook import Outlook, outlook, tests_of_all, tests_where_live
from analysis.settle.pairs import Pair, check_margin, note_pair
from analysis.settle.targets import Target, runs_of_two_arms
from analysis.statistics import has_spread
from analysis.sweeps.from_runs import can_change

OPEN = (INCONCLUSIVE, NOT_RUN)
MOST_SEEDS = 30  # of a claim, where nobody says otherwise
FAILURES = 2  # batches in a row without one new pair, after which a claim is given up


@dataclass(frozen=True)
class Budget:
    """Holds how far to go. seeds: the most seeds of a claim. hours: None has no end. batch: seeds at a time."""

    seeds: int
    hours: float | None
    batch: int | None
    jobs: int

    def size(self, have: int) -> int:
        """Returns how many seeds to add: those asked for, or one for each job and enough for a first look."""
        wanted = self.batch or max(self.jobs, always_valid.FIRST_LOOK - have)
        return max(0, min(wanted, self.seeds - have))


@dataclass
class Settling:
    """Holds one call of the command, with what it tried in vain: seeds that gave no pair, why claims ended."""

    targets: Sequence[Target]
    runs: Path
    results: Path
    budget: Budget
    margin: float | None = None
    say: Callable[[str], None] = print
    started: float = field(default_factory=time.monotonic)
    in_vain: dict[str, set[int]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    noted: Settled = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)

    def look(self) -> list[Outlook]:
        """Reads all runs and returns where each claim stands."""
        frames = load_runs(self.runs)
        name_damaged(frames.damaged)
        return without_damaged(frames, self.outlooks)

    def outlooks(self, frames: RunFrames) -> list[Outlook]:
        """Returns where each claim stands by some runs. Raises DamagedRunsError."""
        sweeps: AtHand = {}
        if not all(target.two_arms for target in self.targets):  # these need no other claim
            sweeps = sweeps_at_hand(frames, self.results, {**read_settled(self.runs), **self.noted})
        tested = tests_of_all(sweeps)
        tested_there = tests_where_live(sweeps) if any(target.live for target in self.targets) else {}
        found = []
        for target in self.targets:
            own = sweeps[target.claim.sweep][0] if target.claim.sweep in sweeps else None
            if target.two_arms:
                own = runs_of_two_arms(frames, target)
            found.append(outlook(target, tested_there if target.live else tested, own, self.margin_of(target)))
        return found

    def margin_of(self, target: Target) -> float | None:
        """Returns the margin of a claim within which its arms count as equal: its own, or the one asked for."""
        declared = next((claim.margin for claim in CLAIMS if claim.id == target.claim.id), None)
        return declared if declared is not None else self.margin

    def next_seeds(self, one: Outlook) -> list[int]:
        """Returns the first seeds that the claim has no pair of, without those that failed in this call."""
        passed = {int(seed) for seed in one.effects.index} | self.in_vain.get(one.target.claim.id, set())
        free = [seed for seed in range(len(passed) + self.budget.seeds) if seed not in passed]
        return free[: self.budget.size(len(one.effects))]

    def why_not(self, one: Outlook) -> str:
        """Says why no batch can be added to a claim, "" where one can."""
        if self.failures.get(one.target.claim.id, 0) >= FAILURES:
            return f"{FAILURES} batches in a row added no pair of arms; see what the runs above say"
        if len(one.effects) >= self.budget.seeds:
            more = f"; --seeds {one.in_all} may settle it, if its effect stays as it looks" if one.in_all else ""
            return f"--seeds {self.budget.seeds} are spent{more}"
        if self.budget.hours is not None:
            left = self.budget.hours * 60 - (time.monotonic() - self.started) / 60
            needed = (one.minutes or 0) * len(self.next_seeds(one)) / self.budget.jobs
            if left <= 0 or needed > left:
                return f"--hours {self.budget.hours:g} leave no time for another batch"
        return ""

    def too_far(self, one: Outlook) -> bool:
        """Tells whether a claim needs more seeds than the budget has, if its effect stays as it looks."""
        return one.in_all is None or one.in_all > self.budget.seeds

    def run(self) -> list[Outlook]:
        """Adds batches, the claim nearest to its verdict first, those that the budget can't settle last.

        Returns where all claims ended.
        """
        self.begin()
        found = self.look()
        self.check_arms([one.target for one in found if one.verdict in OPEN and not self.why_not(one)])
        while True:
            for one in found:
                self.say(words(one))
            able = [one for one in found if one.verdict in OPEN and not self.why_not(one)]
            if not able:
                self.ended = {one.target.claim.id: self.why_not(one) for one in found if one.verdict in OPEN}
                return found
            chosen = min(able, key=lambda one: (self.too_far(one), time_to_go(one)))
            seeds = self.add(chosen)
            found = self.look()
            self.note_missing(seeds, next(one for one in found if one.target is chosen.target))

    def begin(self) -> None:
        """Finds which kept runs count as each sweep's first look. Raises RunFolderError for changed settings."""
        known = read_settled(self.runs)
        for target in self.targets:
            sweep = target.claim.sweep
            if target.two_arms:
                check_margin(self.runs, self.pair(target))
                continue
            if sweep in self.noted:
                continue
            settings = [word for word in target.extra if can_change(word)]
            kept, others = same_runs(sweep, self.results, target.extra)
            if sweep in known and (known[sweep]["settings"] != settings or not {*known[sweep]["kept"]} <= {*kept}):
                raise RunFolderError(changed(self.runs / NAME, sweep, known[sweep]["settings"], settings))
            self.noted[sweep] = known.get(sweep, {"kept": kept, "settings": settings})
            if sweep not in known and kept:
                self.say(f"{sweep}: {len(kept)} kept runs have today's settings and count as the first look")
            if sweep not in known and others:
                self.say(f"{sweep}: {others} kept runs have other settings and don't count")

    def check_arms(self, targets: Sequence[Target]) -> None:
        """Raises RunFolderError where an arm can't run: a batch would train the others for nothing."""
        from klear_lab.arms import check_sweep  # not above: a table of claims needn't wait for torch
        from klear_lab.config import ConfigError

        checked: list[list[str]] = []
        for target in targets:
            for overrides in target.overrides_of([0], str(self.runs), self.budget.jobs):
                if overrides in checked:
                    continue
                try:
                    check_sweep(overrides)
                except ConfigError as error:
                    raise RunFolderError(f"{target.claim.id}: {error}; nothing was run") from error
                checked.append(overrides)

    def add(self, one: Outlook) -> list[int]:
        """Runs a batch; returns its seeds."""
        seeds = self.next_seeds(one)
        if one.target.two_arms:
            note_pair(self.runs, self.pair(one.target))
        else:
            add_settled(self.runs, one.target.claim.sweep, self.noted[one.target.claim.sweep])
        self.say(f"{one.target.claim.id}: seeds {', '.join(map(str, seeds))} ...")
        for command in one.target.commands(seeds, str(self.runs), self.budget.jobs):
            run_command(command)
        return seeds

    def pair(self, target: Target) -> Pair:
        """Returns what is noted of two arms."""
        return Pair(target.two_arms, tuple(target.extra), self.margin)

    def note_missing(self, seeds: Sequence[int], one: Outlook) -> None:
        """Notes which seeds of a batch gave no pair of arms; `one` is where its claim stands after it."""
        name = one.target.claim.id
        missing = {seed for seed in seeds if seed not in one.effects.index}
        self.in_vain.setdefault(name, set()).update(missing)
        self.failures[name] = self.failures.get(name, 0) + 1 if len(missing) == len(seeds) else 0
        if missing:
            words = ", ".join(map(str, sorted(missing)))
            self.say(f"{name}: left out, an arm isn't finished or is confounded: seeds {words}")


def changed(path: Path, sweep: str, before: Sequence[str], now: Sequence[str]) -> str:
    """Says that a sweep's batches were run with other settings than those asked for now."""
    then, today = (shlex.join(words) or "none" for words in (before, now))
    why = f"its batches were run with {then} beside the sweep's own settings, not with {today}"
    if [*before] == [*now]:
        why = "kept runs that counted as its first look don't have today's settings any more"
    return f"{path}: {sweep}: {why}; settle it in another folder: --runs DIR"


def run_command(command: Sequence[str]) -> None:
    """Runs a command to its end. Ctrl-C reaches it too; it is waited for, because it writes checkpoints then."""
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
    if process.returncode in (130, -2, 143, -15):
        raise KeyboardInterrupt


def time_to_go(one: Outlook) -> tuple[float, float]:
    """Returns how far a claim is from its verdict, in run time and seeds; those without an estimate come last."""
    minutes = one.minutes_to_go
    return (np.inf if minutes is None else minutes, np.inf if one.to_go is None else one.to_go)


def words(one: Outlook) -> str:
    """Says where a claim stands in a line."""
    name, seeds = one.target.claim.id, len(one.effects)
    if not seeds:
        return f"{name}: no pair of arms yet"
    low, high = one.interval
    estimate = number_cell(float(one.effects.mean()), signed=True)
    text = f"{name}: {seeds} seed{'s' if seeds > 1 else ''}, {estimate}"
    if np.isfinite([low, high]).all():
        text += f" in [{number_cell(low)}, {number_cell(high)}] at level {one.level:.2g}"
        text += f", boundary ±{number_cell(one.boundary)}"
    if one.verdict not in OPEN:
        return f"{text}: {one.verdict}"
    if one.to_go is None:
        known = has_spread(one.effects.to_numpy())
        return f"{text}; seeds to go: {'over 1000' if known else 'not known before two seeds differ'}"
    taken = "" if one.minutes_to_go is None else f", {one.minutes_to_go:.0f} minutes of run time"
    return f"{text}; about {one.to_go} seed{'s' if one.to_go > 1 else ''} to go{taken}"
