"""Sweeps: what the arms are, whether all of them can run, and how they ended.

`SweepCallback` is called by Hydra where a sweep starts and ends, `run_arm` wherever an arm runs. Before the first
arm every arm is composed and checked, so that a contradiction in the last one doesn't surface after hours. The
sweep folder passes messages between the two: `sweep.json` (name, swept keys), and each arm's outcome.
"""

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from klear_lab.config import CHANGES_NO_RESULT, Config, ConfigError, run_id
from klear_lab.pipeline import run_pipeline
from klear_lab.storage.files import StorageError, replace_file
from klear_lab.storage.interruption import Interrupted, Stop, hold_signals_of_workers, listen
from klear_lab.storage.run_folder import RunFolder
from klear_lab.tracking import final_scores, run_label
from klear_lab.validation import explain, parse

log = logging.getLogger(__name__)

STOP_FILE = "stop"  # in the sweep folder: the sweep was asked to stop


@dataclass(frozen=True)
class Outcome:
    """How an arm ended; `scores` are those of its last evaluation."""

    job: int
    name: str
    seed: int
    status: str
    scores: dict[str, float]
    seconds: float
    folder: str


class SweepCallback(Callback):
    """Hydra calls this where a sweep starts and ends, in the process that starts it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Checks all arms; leaves before anything is trained where one can't run."""
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        lines = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        folder = Path(config.hydra.sweep.dir)
        try:
            overrides = OverridesParser.create().parse_overrides(lines)
            check_arms(overrides)
            folder.mkdir(parents=True, exist_ok=True)
        except (ConfigError, HydraException, OmegaConfBaseException, OSError) as error:
            # Hydra would turn anything but an exit into a warning.
            sys.exit(f"{explain(error)}\nNothing was run.")
        swept = [o.key_or_group for o in overrides if o.is_sweep_override()]
        about = {"sweep": config.sweep_name or sweep_name(overrides), "swept": swept}
        replace_file(folder / "sweep.json", json.dumps(about))
        listen(Stop(folder / STOP_FILE))
        if config.launcher == "joblib":
            hold_signals_of_workers()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table of arms; exits with 1 if any isn't finished."""
        folder = Path(config.hydra.sweep.dir)
        outcomes = [Outcome(**json.loads(f.read_text())) for f in sorted(folder.glob("arm-*.json"))]
        print_outcomes(outcomes)
        if (folder / STOP_FILE).exists():
            sys.exit("The sweep was stopped; the same command goes on with it")
        failed = sum(o.status != "finished" for o in outcomes)
        if failed:
            sys.exit(f"{failed} of {len(outcomes)} arms failed; the same command tries them again")


def sweep_name(overrides: list[Override]) -> str:
    """Names a sweep after the overrides that were typed, without those that can't change a result."""
    typed = [o for o in overrides if o.key_or_group.split(".")[0] not in (*CHANGES_NO_RESULT, "hydra")]
    words = [o.input_line for o in typed if o.key_or_group != "seed"] or [o.input_line for o in typed]
    return " ".join(str(word) for word in words)[:120]


def run_arm(composed: DictConfig) -> None:
    """Runs one config, alone or as an arm of a sweep. Other arms follow a failed one, but not a stopped one."""
    config = parse(composed)
    context = HydraConfig.get()
    if context.mode == RunMode.RUN:
        if context.sweeper.get("params"):
            sweep = dict(context.runtime.choices)["sweep"]
            raise ConfigError(f"sweep={sweep}: a sweep needs -m (--multirun) at the end of the command")
        run_pipeline(config, composed, live=wants_live(config))
        return
    folder = Path(context.sweep.dir)
    about = json.loads((folder / "sweep.json").read_text())
    arm = arm_of(composed, dict(context.runtime.choices), about["swept"])
    run = RunFolder.of(config, run_id(composed))
    started = time.monotonic()
    status = "not started"
    if not (folder / STOP_FILE).exists():
        status = "failed"
        try:
            run_pipeline(
                config,
                composed,
                sweep=about["sweep"],
                arm=arm,
                live=wants_live(config),
                stop_file=folder / STOP_FILE,
            )
            status = "finished"
        except Interrupted as interruption:
            log.info("[%s] %s", run_label(arm, config.seed), interruption)
        except (StorageError, FloatingPointError) as error:
            log.error("[%s] %s; its folder: %s", run_label(arm, config.seed), error, run.path)
        except Exception:
            log.exception("[%s] failed; its folder: %s", run_label(arm, config.seed), run.path)
    try:
        scores = final_scores(run.metrics())
    except StorageError as error:  # the table is of all arms, so a damaged file must not keep it from being drawn
        log.error("[%s] %s", run_label(arm, config.seed), error)
        status, scores = "damaged", {}
    outcome = Outcome(
        job=context.job.num,
        name=run_label(arm, None),
        seed=config.seed,
        status=status,
        scores=scores,
        seconds=time.monotonic() - started,
        folder=str(run.path),
    )
    # The process that started the sweep reads it; joblib's arms run in others.
    replace_file(folder / f"arm-{outcome.job:04d}.json", json.dumps(asdict(outcome)))


def wants_live(config: Config) -> bool:
    """Whether to draw moving bars: only where one run at a time writes to a terminal."""
    if config.progress == "auto":
        return config.launcher == "basic" and sys.stderr.isatty()
    return config.progress == "live"


def arm_of(composed: DictConfig, choices: dict[str, Any], swept: list[str]) -> dict[str, Any]:
    """Maps the swept keys, the seed aside, to this arm's values."""
    keys = [k for k in swept if k != "seed" and k.split(".")[0] not in CHANGES_NO_RESULT]
    return {k: choices[k] if k in choices else plain(OmegaConf.select(composed, k)) for k in keys}


def plain(value: Any) -> Any:
    """Converts a config node to JSON types."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check_arms(overrides: list[Override]) -> None:
    """Composes every arm of a sweep. Raises `ConfigError` naming the arm and its problems."""
    (arms,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    for arm in arms:
        try:
            parse(compose("config", overrides=[o for o in arm if not o.startswith("hydra.")]))
        except ConfigError as error:
            raise ConfigError(f"arm {' '.join(arm)}:\n{error}") from error


def shortest(folder: str) -> str:
    """Shortens a path below the working directory to a relative one."""
    return str(Path(folder).relative_to(Path.cwd())) if Path(folder).is_relative_to(Path.cwd()) else folder


def print_outcomes(outcomes: list[Outcome]) -> None:
    """Prints one line an arm: status, final scores, time, folder."""
    metrics = sorted({key for o in outcomes for key in o.scores})
    table = Table(title="Arms of the sweep", title_justify="left")
    for heading in ("arm", "seed", "status", *(m.removeprefix("eval/") for m in metrics), "seconds"):
        table.add_column(heading)
    table.add_column("folder", overflow="fold")
    for o in outcomes:
        scores = [f"{o.scores[m]:.3f}" if m in o.scores else "-" for m in metrics]
        table.add_row(o.name, str(o.seed), o.status, *scores, f"{o.seconds:.0f}", shortest(o.folder))
    # Files and pipes have no width of their own; 80 columns would fold every heading.
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)
