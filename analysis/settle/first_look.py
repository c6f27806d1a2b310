"""Finds which kept results count as a sweep's first look: those that today's settings would make again.

A run's id is a hash of its settings, so a kept run counts where composing its arm and seed gives its id. Each arm
is composed once, which takes a fifth of a second, and given its seeds then.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from analysis.arms import as_words
from analysis.sweeps.kept import read_results, results_file, value_order
from klear_lab.config import register
from klear_lab.identity import run_id

CONF = Path(__file__).parents[2] / "conf"


def same_runs(sweep: str, results: Path, extra: Sequence[str] = ()) -> tuple[list[str], int]:
    """Returns the ids of kept runs that today's settings would make again, and how many others there are."""
    path = results_file(results, sweep)
    if not path.exists():
        return [], 0
    runs = read_results(path).runs
    arms: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        arms.setdefault(tuple(f"{key}={as_words(value)}" for key, value in run["arm"].items()), []).append(run)
    swept = {key for run in runs for key in run["arm"]}
    order = value_order(sweep).items()
    single = [f"{key}={values[0]}" for key, values in order if len(values) == 1 and key not in swept]
    register()
    GlobalHydra.instance().clear()
    same = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for arm, own in arms.items():
            try:
                composed = compose("config", [f"sweep={sweep}", *single, *arm, *extra])
                for run in own:
                    composed.seed = run["seed"]
                    if run_id(composed) == run.get("run_id"):
                        same.append(run["run_id"])
            except (HydraException, OmegaConfBaseException):
                continue  # an arm that can't be composed any more
    return same, len(runs) - len(same)
