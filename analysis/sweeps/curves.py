"""Curves of a kept sweep: scores and metrics over RL steps, a line an arm, from analysis/results/<sweep>.jsonl.

    python -m analysis curves collapse chain6 policy/entropy --where clip_method.dual_clip=null --out collapse.png

Panels are benchmarks, or metrics among those that `analysis.sweeps.kept` keeps. Lines are means over seeds, bands
reach from the lowest to the highest seed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.arms import as_words, describe_arm
from analysis.draw.figure import UNDATED, Block, Panel, draw_blocks, in_rows, save_one
from analysis.runs.files import RunFolderError
from analysis.statistics import over_seeds
from analysis.sweeps.kept import FOLDER, KeptSweep, read_results


def kept_curves(kept: KeptSweep, panels: Sequence[str]) -> pd.DataFrame:
    """The panels' curves in the form of `statistics.over_seeds`. Raises `RunFolderError` for one that isn't kept.

    An arm is named by the keys that differ between the runs given.
    """
    differing = [key for key in kept.runs[0]["arm"] if len({as_words(run["arm"][key]) for run in kept.runs}) > 1]
    known = panels_of(kept)
    for panel in panels:
        if panel not in known:
            raise RunFolderError(
                f"{panel}: not kept of sweep {kept.about['sweep']}; one of {', '.join(sorted(known))}"
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
    arms = pd.DataFrame(
        {
            "run_id": run["run_id"],
            "arm": describe_arm({key: run["arm"][key] for key in differing}),
            "method": run["arm"].get("clip_method", describe_arm(run["arm"])),
        }
        for run in kept.runs
    )
    return over_seeds(values, arms)


def panels_of(kept: KeptSweep) -> set[str]:
    """The benchmarks and metrics that a run of the sweep has values of."""
    return {name for run in kept.runs for name in (*run["scores"], *run["curves"])}


def only(kept: KeptSweep, wanted: Sequence[str]) -> KeptSweep:
    """The runs whose arm has each `key=value`. Raises `RunFolderError` where none has."""
    pairs = [pair.partition("=") for pair in wanted]
    runs = [
        run
        for run in kept.runs
        if all(as_words(run["arm"].get(key)) in words.split(",") for key, _, words in pairs)
    ]
    if not runs:
        raise RunFolderError(f"no run of sweep {kept.about['sweep']} has {', '.join(wanted)}")
    return KeptSweep(kept.about, runs)


def curves_figure(kept: KeptSweep, panels: Sequence[str], title: str) -> Figure:
    """One panel each, four in a row."""
    curves = kept_curves(kept, panels)
    blocks = [
        Block(title if i == 0 else "", [Panel(p, p) for p in row], curves) for i, row in enumerate(in_rows(panels))
    ]
    return draw_blocks(blocks, narrow=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Draws one figure; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", help="name of a kept sweep")
    parser.add_argument(
        "panels", nargs="+", metavar="PANEL", help="benchmark or metric, e.g. chain6 optim/grad_norm"
    )
    parser.add_argument("--where", nargs="*", default=[], metavar="KEY=VALUE[,VALUE]", help="only these arms")
    parser.add_argument("--title", help="default: the sweep's name and what is drawn")
    parser.add_argument("--results", type=Path, default=FOLDER, help="default: analysis/results of this checkout")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .png, .svg or .pdf")
    arguments = parser.parse_args(argv)
    if arguments.out.suffix[1:] not in UNDATED:
        parser.error(f"--out {arguments.out}: ends in none of .{', .'.join(UNDATED)}")
    try:
        path = arguments.results / f"{arguments.sweep}.jsonl"
        if not path.exists():
            kept = ", ".join(sorted(p.stem for p in arguments.results.glob("*.jsonl")))
            raise RunFolderError(f"{path}: no such file; kept are {kept or 'none'}")
        kept_sweep = only(read_results(path), arguments.where)
        seeds = len({run["seed"] for run in kept_sweep.runs})
        title = arguments.title or f"{arguments.sweep} (mean and range of {seeds} seeds)"
        save_one(curves_figure(kept_sweep, arguments.panels, title), arguments.out)
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"figure: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
