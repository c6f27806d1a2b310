"""Draws curves of a kept sweep: scores and metrics over RL steps, a line for each arm.

Panels are benchmarks and kept metrics. Lines are means over seeds, bands reach from the lowest to the highest
seed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.arms import as_words, describe_arm
from analysis.draw.figure import Block, Panel, draw_blocks, in_rows
from analysis.errors import RunFolderError
from analysis.runs.choose import nearest
from analysis.statistics import over_seeds
from analysis.sweeps.effects import arm_keys, swept_keys
from analysis.sweeps.kept import KeptSweep, as_number


def kept_curves(kept: KeptSweep, panels: Sequence[str]) -> pd.DataFrame:
    """Returns the panels' curves in the form of `statistics.over_seeds`. Raises RunFolderError for one not kept.

    An arm is named by the keys that differ between the runs given.
    """
    known = panels_of(kept)
    for panel in panels:
        if panel not in known:
            raise RunFolderError(
                f"{panel}: not kept of sweep {kept.about['sweep']}; one of {', '.join(sorted(known))}"
                f"{nearest(panel, sorted(known))}"
            )
    rows = []
    for run in kept.runs:
        points = {name: [*found.items()] for name, found in run["scores"].items()}
        points |= {name: [*enumerate(values, start=1)] for name, values in run["curves"].items()}
        # a run may lack a metric that others have: the entropy of clipped tokens, where none was clipped
        rows += [
            (run["run_id"], panel, int(step), value) for panel in panels for step, value in points.get(panel, [])
        ]
    values = pd.DataFrame(rows, columns=["run_id", "panel", "step", "value"]).astype({"value": float})
    values["value"] = values["value"].replace([np.inf, -np.inf], np.nan)  # an overflow has no mean
    arms = pd.DataFrame(
        {
            "run_id": run["run_id"],
            "arm": arm,
            "method": str(run["arm"].get("clip_method", describe_arm(run["arm"]))),
        }
        for run, arm in zip(kept.runs, arms_of(kept), strict=True)
    )
    return over_seeds(values, arms)


def arms_of(kept: KeptSweep) -> list[str]:
    """Returns each run's arm, named by the keys that differ between the runs; by all where none does."""
    keys = swept_keys(kept) or arm_keys(kept)
    return [describe_arm({key: run["arm"].get(key) for key in keys}) for run in kept.runs]


def panels_of(kept: KeptSweep) -> set[str]:
    """Returns the benchmarks and metrics that a run of the sweep has values of."""
    return {name for run in kept.runs for name in (*run["scores"], *run["curves"])}


def only_arms(kept: KeptSweep, wanted: Sequence[str]) -> KeptSweep:
    """Returns the sweep with those runs whose arm has each `key=value`. Raises RunFolderError where none has."""
    pairs = [pair.partition("=") for pair in wanted]
    keys = arm_keys(kept)
    for key, equals, _ in pairs:
        if not equals or key not in keys:
            raise RunFolderError(
                f"--where {key}{equals}: not KEY=VALUE of a key that sweep {kept.about['sweep']} varies; "
                f"one of {', '.join(keys)}{nearest(key, keys)}"
            )
    runs = [
        run
        for run in kept.runs
        if all(
            as_number(as_words(run["arm"].get(key))) in map(as_number, words.split(",")) for key, _, words in pairs
        )
    ]
    if not runs:
        raise RunFolderError(f"no run of sweep {kept.about['sweep']} has {', '.join(wanted)}")
    return KeptSweep(kept.about, runs)


def curves_figure(kept: KeptSweep, panels: Sequence[str], title: str) -> Figure:
    """Draws a figure with a panel for each name, four in a row."""
    curves = kept_curves(kept, panels)
    blocks = [
        Block(title if i == 0 else "", [Panel(p, p) for p in row], curves) for i, row in enumerate(in_rows(panels))
    ]
    return draw_blocks(blocks, narrow=False)
