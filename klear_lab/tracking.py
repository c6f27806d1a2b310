"""Sends a run's metrics to metrics.jsonl, wandb and the console; klear_lab/metrics.py names them.

wandb's own step counts through both stages, so that metrics they share (`optim/lr`, `loss/sft`) have one axis
that only goes up; wandb draws what RL alone logs over `rl/step`. A run that is taken up again logs its
metrics.jsonl anew, so that an offline `.wandb` file holds the whole run; online, wandb ignores steps it has seen.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klear_lab import metrics as metrics_table
from klear_lab.config import Config, ConfigError, LoggerConfig
from klear_lab.progress import Display
from klear_lab.storage.run_folder import RunFolder

if TYPE_CHECKING:  # where it is used it is imported: that takes a second, and runs may go without it
    import wandb

log = logging.getLogger(__name__)

# What wandb gets of run.json, so that the analysis can read runs from there.
RECORDED = ("arm", "sweeps", "seed", "git_commit", "versions", "hardware", "command")
PROJECT = "klear_lab"  # unless logger.project or WANDB_PROJECT names another
LONGEST_NAME, LONGEST_TAG = 128, 64  # characters that wandb takes
# What WANDB_MODE may say, also in the words of older wandb versions, and what that means.
MODES = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
# Variables that can't be followed, and why.
OURS = {
    "WANDB_NAME": "a run is named after its arm and seed, by which a sweep's runs are told apart",
    "WANDB_RUN_GROUP": "the runs of a sweep share the sweep's group",
    "WANDB_RUN_ID": "a run's id is the hash of its config, by which it is resumed",
    "WANDB_RESUME": "a run is resumed by its own checkpoint and id",
}


class Tracker:
    """Logs the metrics of one run; it is a context manager that stays open as long as the run."""

    def __init__(self, folder: RunFolder, config: Config, wandb_config: Any, live: bool) -> None:
        """Opens wandb and sends it what is logged already; `live` chooses moving bars over lines.

        wandb_config: the resolved config, for wandb.
        """
        self.folder = folder
        self.label = run_label(folder.record["arm"], config.seed)
        self.rl_offset = config.sft.steps + 1
        mode = "off" if config.progress == "off" else "live" if live else "lines"
        self.display = Display(self.label, mode)
        self.run = start_wandb(folder, config, self.label, wandb_config)
        self.send_again()

    def __enter__(self) -> "Tracker":
        """Returns the tracker itself."""
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Ends the wandb run; a failed run is marked as one."""
        if self.run is not None:
            self.run.finish(exit_code=0 if kind is None else 1)

    def log(
        self,
        stage: str,
        step: int,
        metrics: dict[str, Any],
        probes: dict[str, Any] | None = None,
        samples: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Logs one step's metrics in every place.

        `probes` and `samples` are lines of probes.jsonl and samples.jsonl, where they are already.
        """
        line = {"stage": stage, "step": step, **metrics}
        self.folder.append_line("metrics.jsonl", line)
        self.send_to_wandb(line, probes, samples)

    def send_again(self) -> None:
        """Sends wandb what earlier attempts logged, and remembers how long their evaluations took."""
        probes: dict[int | None, Any] = {line["step"]: line for line in self.folder.lines("probes.jsonl")}
        samples: dict[int | None, list[dict[str, Any]]] = {}
        for line in self.folder.lines("samples.jsonl"):
            samples.setdefault(line["step"], []).append(line)
        for line in self.folder.metrics():
            step = line["step"] if line["stage"] == "rl" else None
            self.send_to_wandb(line, probes.get(step), samples.get(step, ()))

    def send_to_wandb(
        self, line: dict[str, Any], probes: dict[str, Any] | None, samples: Sequence[dict[str, Any]]
    ) -> None:
        """Sends a line of metrics.jsonl to wandb as a history row, without nulls, which wandb doesn't have."""
        if "time/eval_s" in line:
            self.display.evaluation_seconds.append(line["time/eval_s"])
        if self.run is None:
            return
        stage, step = line["stage"], line["step"]
        known = {k: v for k, v in line.items() if v is not None and k not in ("stage", "step")}
        known |= {f"{name}_histogram": as_wandb(h) for name, h in (probes or {}).get("histograms", {}).items()}
        if samples:
            import wandb

            known["samples"] = wandb.Table(columns=[*samples[0]], data=[[*one.values()] for one in samples])
        self.run.log({f"{stage}/step": step, **known}, step=step if stage == "sft" else self.rl_offset + step)

    def log_most_clipped(self, step: int) -> None:
        """Sends wandb a table of the tokens that were clipped most in all steps, in the row of the last one."""
        if self.run is None:
            return
        import wandb

        totals: Counter[tuple[str, str]] = Counter()
        for line in self.folder.lines("probes.jsonl"):
            for region, tokens in line["most_clipped"].items():
                totals.update({(region, token["text"]): token["count"] for token in tokens})
        rows: list[Any] = [[region, text, count] for (region, text), count in totals.most_common()]
        table = wandb.Table(columns=["region", "token", "count"], data=rows)
        self.run.log({"clip/tokens": table}, step=self.rl_offset + step)

    def alert(self, title: str, text: str) -> None:
        """Sends a warning to wandb, which tells people as they have asked it to."""
        if self.run is not None:
            self.run.alert(title=title, text=text, level="WARN")


def final_scores(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the last value of each `eval/...` metric."""
    return {key: value for line in lines for key, value in line.items() if key.startswith("eval/")}


def run_label(arm: dict[str, Any], seed: int | None) -> str:
    """Returns what console and wandb call a run: its arm and seed, e.g. "gppo, alpha=0.1 seed 0"."""
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


def as_wandb(histogram: dict[str, Any]) -> "wandb.Histogram":
    """Turns a histogram of probes.jsonl into wandb's own."""
    import wandb

    counts = histogram["counts"]
    return wandb.Histogram(
        np_histogram=(counts, np.linspace(histogram["low"], histogram["high"], len(counts) + 1))
    )


def start_wandb(folder: RunFolder, config: Config, label: str, wandb_config: Any) -> Any:
    """Starts the wandb run; returns None where wandb is off. Runs of a sweep share a group, arms are tags.

    Explicit keys of the config win over wandb's environment variables, these over our defaults; a variable that
    has no effect is named in a line. Raises ConfigError where wandb refuses, for instance without a login.
    """
    logger, record = config.logger, folder.record
    mode = logger.wandb_mode or mode_of_environment()
    for words in without_effect(logger, mode, in_sweep=record["sweep"] is not None):
        log.warning("%s", words)
    if mode == "disabled":
        return None
    import wandb

    place = Path(os.environ.get("WANDB_DIR") or folder.path).expanduser().absolute()
    if mode == "offline":  # an earlier attempt's, logged anew
        shutil.rmtree(folder.path / "wandb", ignore_errors=True)
        for earlier in place.glob(f"wandb/offline-run-*-{record['run_id']}"):
            shutil.rmtree(earlier, ignore_errors=True)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"WANDB_DIR={place}: can't be written ({error.strerror})") from error
    group = record["sweep"] or os.environ.get("WANDB_RUN_GROUP") or None
    arm_tags = [f"{key}={value}" for key, value in record["arm"].items()]
    tags = [*(logger.tags or tags_of_environment()), config.scale, *arm_tags]
    try:
        run = wandb.init(
            dir=place,
            mode="offline" if mode == "offline" else "online",
            id=record["run_id"],
            resume="allow" if mode == "online" else None,
            project=logger.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=logger.entity or os.environ.get("WANDB_ENTITY") or None,
            name=cut(label, LONGEST_NAME),
            group=group and cut(group, LONGEST_NAME),
            tags=[cut(tag, LONGEST_TAG) for tag in tags if tag],
            config={**wandb_config, "klear_lab": {key: record.get(key) for key in RECORDED}},
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.errors.UsageError as error:
        raise ConfigError(f"logger=wandb: {error} Or choose logger=offline, and `wandb sync` later") from error
    except ValueError as error:  # pydantic's: wandb checks its variables also where ours win
        words = " ".join(str(error).split())
        raise ConfigError(f"wandb refuses a setting, perhaps one of a WANDB_ variable: {words}") from error
    run.define_metric("sft/step", hidden=True)
    run.define_metric("rl/step", hidden=True)
    for pattern in metrics_table.rl_patterns():
        run.define_metric(pattern, step_metric="rl/step")
    return run


def mode_of_environment() -> str:
    """Returns the mode that wandb's variables ask for, offline where they ask for none.

    Raises ConfigError for a mode that wandb doesn't have.
    """
    word = os.environ.get("WANDB_MODE", "").strip().lower()
    if disabled_by_environment():
        return "disabled"
    if word and word not in MODES:
        raise ConfigError(f"WANDB_MODE={word}: must be one of {', '.join(MODES)}; or choose logger=offline")
    return MODES.get(word, "offline")


def disabled_by_environment() -> bool:
    """Tells whether WANDB_DISABLED is set to a word that means yes."""
    return os.environ.get("WANDB_DISABLED", "").strip().lower() in ("1", "true", "yes", "y", "on")


def tags_of_environment() -> list[str]:
    """Returns the tags in WANDB_TAGS, which commas part."""
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]


def without_effect(logger: LoggerConfig, mode: str, in_sweep: bool) -> list[str]:
    """Returns a line for each of wandb's variables that is set and isn't followed, with the reason."""
    lines = []

    def name(variable: str, reason: str) -> None:
        lines.append(f"{variable}={os.environ[variable]} has no effect: {reason}")

    if logger.wandb_mode is not None:
        word = os.environ.get("WANDB_MODE", "").strip().lower()
        if word and MODES.get(word) != mode:
            name("WANDB_MODE", f"logger.wandb_mode={mode} is set (logger={logger.name})")
        if disabled_by_environment() and mode != "disabled":
            name("WANDB_DISABLED", f"logger.wandb_mode={mode} is set (logger={logger.name})")
    if mode == "disabled":
        return lines
    for key in ("project", "entity"):
        chosen, variable = getattr(logger, key), f"WANDB_{key.upper()}"
        if chosen and os.environ.get(variable, chosen) not in ("", chosen):
            name(variable, f"logger.{key}={chosen} is set")
    if logger.tags and tags_of_environment() not in ([], logger.tags):
        name("WANDB_TAGS", f"logger.tags={','.join(logger.tags)} is set")
    for variable, reason in OURS.items():
        if os.environ.get(variable) and (in_sweep or variable != "WANDB_RUN_GROUP"):
            name(variable, reason)
    return lines
