"""Sweeps: what the arms are, whether all of them can run, and how they ended.

`SweepCallback` is called by Hydra where a sweep starts and ends, `run_arm` wherever an arm runs. Before the first
arm every arm is composed and checked, so that a contradiction in the last one doesn't surface after hours. Each
start of a sweep has a folder of its own, which passes messages between the two: `sweep.json` (name, arms), and
each arm's outcome.

Several starts of one sweep, on any machines that see `runs_dir`, share its arms: see `take_arms`.
"""

import json
import logging
import os
import shlex
import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from klear_lab.arms import (
    FixedArms,
    check_machines,
    kept_arm,
    read_arms,
    sweep_name,
    sweep_overrides,
    write_arms,
)
from klear_lab.composing import without_hydra
from klear_lab.config import Config, ConfigError
from klear_lab.engines.trl.processes import count
from klear_lab.identity import run_id
from klear_lab.launchers import SHARES_GPUS, take_gpu
from klear_lab.outcomes import Outcome, outcome_file, print_outcomes, shortest
from klear_lab.pipeline import run_pipeline
from klear_lab.preflight import check_machine
from klear_lab.storage.files import StorageError, replace_file
from klear_lab.storage.interruption import Interrupted, Stop, hold_signals_of_workers, listen
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import Busy, is_held
from klear_lab.tracking import final_scores, run_label
from klear_lab.validation import USERS_ERRORS, explain, parse

log = logging.getLogger(__name__)

STOP_FILE = "stop"  # in the sweep folder: the sweep was asked to stop
SECONDS_BETWEEN_LOOKS = 1.0


class SweepCallback(Callback):
    """Hydra calls this where a run or a sweep starts and ends, in the process that starts it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Leaves where one of Hydra's settings contradicts where klear_lab keeps its runs."""
        check_hydra(config)
        config.hydra.run.dir = "."  # Hydra makes this folder, and klear_lab needs none but its own

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Fixes and checks all arms; leaves before anything is trained where one can't run."""
        try:
            check_hydra(config)
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            start_sweep(config, hydra)
        except (*USERS_ERRORS, OSError) as error:
            # Hydra would turn anything but an exit into a warning.
            raise SystemExit(f"{explain(error)}\nNothing was run.") from error
        except Exception:
            log.exception("the sweep can't be started")
            sys.exit("Nothing was run.")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the table of arms; exits with 1 if any isn't finished."""
        folder = Path(config.hydra.sweep.dir)
        outcomes = [Outcome(**json.loads(f.read_text())) for f in sorted(folder.glob("arm-*.json"))]
        print_outcomes(outcomes)
        if (folder / STOP_FILE).exists():
            sys.exit("The sweep was stopped; the same command goes on with it")
        failed = sum(o.status not in ("finished", "written") for o in outcomes)
        if failed:
            sys.exit(f"{failed} of {len(outcomes)} arms failed; the same command tries them again")
        log.info("next: %s", next_command(config.runs_dir))


def check_hydra(config: DictConfig) -> None:
    """Exits for Hydra's settings of folders, which klear_lab has keys of its own for."""
    typed = {line.split("=")[0].lstrip("+~") for line in config.hydra.overrides.hydra}
    if config.hydra.job.chdir:
        sys.exit("hydra.job.chdir=true: paths are from the folder of the command; leave it out, and set runs_dir")
    for key in ("hydra.run.dir", "hydra.sweep.subdir", "hydra.output_subdir"):
        if key in typed:
            sys.exit(f"{key}: isn't used; a run is kept in <runs_dir>/<run_id>, so set runs_dir")


def start_sweep(config: DictConfig, hydra: Hydra) -> None:
    """Gives a sweep its arms and a folder of its own. Raises `ConfigError` where an arm can't run."""
    sweeper = str(config.hydra.sweeper._target_)
    if not sweeper.endswith(".BasicSweeper"):
        raise ConfigError(f"hydra/sweeper: {sweeper} isn't supported; must be basic, whose arms are known before")
    if OmegaConf.select(config.hydra, "launcher.n_jobs") == 0:
        raise ConfigError("hydra.launcher.n_jobs=0: must be a number of runs at a time, or -1 for one a core")
    HydraConfig.instance().set_config(config)  # ${hydra:...} resolves
    OmegaConf.set_readonly(config.hydra, False)
    arms = read_arms(config, hydra.config_loader)
    if count() > 1 and any(arm.config.engine.name == "trl" for arm in arms):
        raise ConfigError("-m: several processes share one run; start one launch for each arm, without -m")
    check_machines(arms)
    folder = own_folder(Path(config.hydra.sweep.dir).expanduser().absolute())
    for composed in (config, *(arm.composed for arm in arms)):
        composed.hydra.sweep.dir, composed.hydra.sweep.subdir = str(folder), "."
    write_arms(arms, folder, config.sweep_name or sweep_name(sweep_overrides(config, hydra.config_loader)))
    hydra.config_loader = FixedArms(hydra.config_loader, arms)
    listen(Stop(folder / STOP_FILE))
    if launcher_of(config.hydra) != "basic":
        hold_signals_of_workers()


def own_folder(parent: Path) -> Path:
    """Makes a folder that only this start of a sweep writes to, named by the time."""
    while True:
        folder = parent / datetime.now().strftime("%Y-%m-%dT%H-%M-%S-%f")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise
            continue
        return folder


def launcher_of(hydra: Any) -> str:
    """Returns the launcher that Hydra uses, whichever way it was chosen."""
    return str(hydra.runtime.choices["hydra/launcher"])


def next_command(runs_dir: str) -> str:
    """Returns the command that shows results."""
    return "python -m analysis" + ("" if runs_dir == "runs" else f" --runs {shlex.quote(runs_dir)}")


def run_arm(composed: DictConfig) -> None:
    """Runs one config, alone or as an arm of a sweep."""
    context = HydraConfig.get()
    config = parse(composed)
    identity = run_id(composed)
    run = RunFolder.of(config, identity)
    if context.mode == RunMode.RUN:
        if context.sweeper.get("params"):
            sweep = dict(context.runtime.choices)["sweep"]
            raise ConfigError(f"sweep={sweep}: a sweep needs -m (--multirun) at the end of the command")
        check_machine(config, identity)
        run_pipeline(config, composed, live=wants_live(config))
        log.info("the run is in %s; next: %s", shortest(str(run.path)), next_command(config.runs_dir))
        return
    folder = Path(context.sweep.dir)
    if not (folder / "sweep.json").exists():
        raise ConfigError(
            "a sweep needs klear_lab's settings of Hydra; begin the main config with `defaults: [config, _self_]`"
        )
    about = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    os.chdir(about["directory"])  # ray starts its processes elsewhere on other machines, and paths are from here
    if launcher_of(context) in SHARES_GPUS and config.engine.name != "verl":  # which takes all by itself
        take_gpu(config.device)
    number = next(number for number, arm in enumerate(about["arms"]) if arm["run_id"] == identity)
    take_arms(folder, about, number)


def take_arms(folder: Path, about: dict[str, Any], own: int) -> None:
    """Runs an arm; while another process works on it, runs the next arms that are free.

    So starts of one sweep on several machines share its arms instead of waiting for one another at the first.
    """
    told = False
    while not outcome_file(folder, own).exists() and not run_if_free(folder, about, own):
        if not told:
            log.info(
                "[%s] another process works on this arm; taking the next free one", about["arms"][own]["name"]
            )
        told = True
        behind_first = [*range(own + 1, len(about["arms"])), *range(own)]
        left = [number for number in behind_first if not outcome_file(folder, number).exists()]
        if not any(run_if_free(folder, about, number) for number in left):
            time.sleep(SECONDS_BETWEEN_LOOKS)


def run_if_free(folder: Path, about: dict[str, Any], number: int) -> bool:
    """Runs an arm to its outcome, unless another process is at work on it; tells whether it did.

    Other arms follow a failed one, but not a stopped one.
    """
    stopped = (folder / STOP_FILE).exists()
    entry = about["arms"][number]
    if not stopped and is_held(RunFolder(Path(entry["folder"])).lock):
        return False
    before = HydraConfig.instance().cfg
    composed = kept_arm(folder, number)
    try:
        HydraConfig.instance().set_config(composed)  # ${hydra:...} resolves to the arm's own
        own = without_hydra(composed)
        run_one(folder, about, number, own, stopped)
    except Busy:  # taken since we looked
        return False
    finally:
        HydraConfig.instance().cfg = before
    return True


def run_one(folder: Path, about: dict[str, Any], number: int, composed: DictConfig, stopped: bool) -> None:
    """Runs an arm and writes down how it ended. Raises `Busy` where another process is at work on it."""
    config = parse(composed)
    entry = about["arms"][number]
    run = RunFolder.of(config, entry["run_id"])
    label = run_label(entry["arm"], config.seed)
    started = time.monotonic()
    status = "not started"
    if not stopped:
        status = "failed"
        try:
            run_pipeline(
                config,
                composed,
                sweep=about["sweep"],
                arm=entry["arm"],
                live=wants_live(config),
                stop_file=folder / STOP_FILE,
                wait=False,
            )
            status = "written" if config.dry_run else "finished"
        except Busy:
            raise
        except Interrupted as interruption:
            log.info("[%s] %s", label, interruption)
            status = "stopped"
        except USERS_ERRORS as error:
            log.error("[%s] %s; its folder: %s", label, explain(error), run.path)
            status = "failed"
        except Exception:
            log.exception("[%s] failed; its folder: %s", label, run.path)
            status = "failed"
    try:
        scores = final_scores(run.metrics())
    except StorageError as error:  # the table is of all arms, so a damaged file must not keep it from being drawn
        log.error("[%s] %s", label, error)
        status, scores = "damaged", {}
    outcome = Outcome(
        job=number,
        name=run_label(entry["arm"], None),
        seed=config.seed,
        status=status,
        scores=scores,
        seconds=time.monotonic() - started,
        folder=str(run.path),
    )
    # The process that started the sweep reads it; most launchers' arms run in others.
    replace_file(outcome_file(folder, number), json.dumps(asdict(outcome)))


def wants_live(config: Config) -> bool:
    """Whether to draw moving bars: only where one run at a time writes to a terminal."""
    if config.progress == "auto":
        return launcher_of(HydraConfig.get()) == "basic" and sys.stderr.isatty()
    return config.progress == "live"
