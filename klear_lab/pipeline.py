"""One run: prepare data, SFT, RL with its evaluations, in that order, into one run folder.

Data and SFT come from the stage cache where another run has made them. RL belongs to the run and goes on from
its last checkpoint.
"""

import logging
import traceback
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from klear_lab.config import Config, ConfigError
from klear_lab.data.sources import source_fingerprint
from klear_lab.engines.trl.processes import follows, led
from klear_lab.identity import run_id
from klear_lab.storage.files import StorageError, trouble
from klear_lab.storage.fingerprints import difference, is_fingerprint, weights_fingerprint
from klear_lab.storage.interruption import Interrupted, stop_on_signals
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import STAGE_VERSIONS, cache_folder, held_lock

log = logging.getLogger(__name__)


def run_pipeline(
    config: Config,
    composed: DictConfig,
    *,
    sweep: str | None = None,
    arm: dict[str, Any] | None = None,
    live: bool = False,
    stop_file: Path | None = None,
    wait: bool = True,
) -> RunFolder:
    """Runs what isn't done yet of one config and returns its folder.

    What a stage raises is written to run.json and raised again, as a `StorageError` where a full disk or a
    vanished folder is behind it. A run that another process is working on is waited for; without `wait` it raises
    `Busy`. A finished run is never changed: where its files or the code's stages have changed since, a
    `StorageError` says so. An unfinished one is made anew then.
    """
    identity = run_id(composed)
    folder, cache_dir = RunFolder.of(config, identity), cache_folder(config)
    if follows(config):  # another process of this launch owns the folder
        from klear_lab.engines.trl.follow import follow

        follow(config)
        return folder
    folder.path.mkdir(parents=True, exist_ok=True)
    with (
        led(config),
        stop_on_signals(stop_file) as stop,
        held_lock(folder.lock, f"working on {identity}", stop, wait),
    ):
        folder.check_record(identity)
        inputs = find_inputs(config, folder.record.get("inputs") or {})
        check_finished(folder, inputs)
        folder.join_sweep(identity, config.seed, sweep, arm or {})
        if folder.record["status"] == "finished":
            log.info("[%s] finished already: %s", identity, folder.path)
            return folder
        try:
            forget_other_inputs(folder, inputs)
            from klear_lab.stages import start_stages  # not above: a finished run needn't wait for torch

            start_stages(config, composed, folder, stop, live)
        except BaseException as error:
            plain = None if isinstance(error, StorageError) else trouble(error, [folder.path, cache_dir])
            note_failure(folder, plain or error)
            if plain is not None:
                raise plain from error
            raise
    return folder


def note_failure(folder: RunFolder, error: BaseException) -> None:
    """Records how an attempt ended, where that can still be written."""
    try:
        said = str(error) if isinstance(error, Interrupted | StorageError) else traceback.format_exc()
        stopped = isinstance(error, KeyboardInterrupt)  # nothing is wrong with it: the same command goes on
        folder.update_record(status="running" if stopped else "failed", error=said)
    except StorageError as second:
        log.warning("run.json doesn't say how this attempt ended: %s", second)


def find_inputs(config: Config, before: dict[str, Any]) -> dict[str, Any]:
    """Describes what a run is made from: the files of its model and data, by content, and the stages' versions.

    `before`: what an earlier attempt was made from. Files that are gone (runs looked at on another machine) or
    can't be read say nothing against it; a run that still needs them stops in the stage that reads them.
    """
    cache_dir = cache_folder(config)
    try:
        weights = weights_fingerprint(config.model, cache_dir) or before.get("weights")
    except ConfigError:
        weights = before.get("weights")
    try:
        data_files = source_fingerprint(config.data_source, cache_dir) or before.get("data_files")
    except ConfigError:
        data_files = before.get("data_files")
    return {"stage_versions": STAGE_VERSIONS, "weights": weights, "data_files": data_files}


def what_changed(before: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Names what a run was made from that is different now, the code's stages or a file; None for nothing."""
    versions = before.get("stage_versions") or STAGE_VERSIONS
    for stage, version in STAGE_VERSIONS.items():
        if versions.get(stage) != version:
            return f"the code's {stage} stage has changed (version {version}, was {versions.get(stage)})"
    for key in ("weights", "data_files"):
        known = key in before and is_fingerprint(before[key])
        if known and (changed := difference(before[key] or [], inputs[key] or [])):
            return changed
    return None


def knows_inputs(before: dict[str, Any]) -> bool:
    """Tells whether a record says which files a run was made from; older code wrote a hash of times and paths."""
    return all(key in before and is_fingerprint(before[key]) for key in ("weights", "data_files"))


def check_finished(folder: RunFolder, inputs: dict[str, Any]) -> None:
    """Raises `StorageError` for a finished run of other inputs: only a person deletes results."""
    before = folder.record.get("inputs") or {}
    if folder.record.get("status") != "finished":
        return
    if changed := what_changed(before, inputs):
        raise StorageError(
            f"{folder.path}: this run is finished, and {changed} since; delete or move the folder to make the run "
            "anew, or choose another runs_dir to keep both"
        )
    if not knows_inputs(before):
        said = (
            "[%s] run.json doesn't say which files the run was made from; it is kept. To make it anew, delete %s"
        )
        log.warning(said, folder.path.name, folder.path)


def forget_other_inputs(folder: RunFolder, inputs: dict[str, Any]) -> None:
    """Clears what an unfinished attempt made from other files or by other versions of the stages."""
    before = folder.record.get("inputs") or {}
    changed = what_changed(before, inputs)
    if changed or not knows_inputs(before):
        if folder.has_results():
            why = changed or "run.json doesn't say which files it was made from"
            log.warning("[%s] %s: the unfinished run is made anew", folder.path.name, why)
        folder.clear()  # files without a record are what is left of a folder that was removed under a run
    folder.update_record(inputs=inputs)
