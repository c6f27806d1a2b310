"""Sends wandb what the report says of a sweep, beside the sweep's own runs: tables, figures and a workspace.

    python -m analysis wandb                         # every sweep of runs/, online (needs a login: wandb login)
    python -m analysis wandb figure2 --offline       # one sweep, to be sent later by wandb sync
    python -m analysis wandb figure2 --workspace workspace.json   # the workspace's definition, as a file

A run named "report of SWEEP" joins the sweep's group with its tables and figures. Online, it also saves a
workspace of the sweep's comparison: scores and the panels of klear_lab/metrics.py over RL steps, grouped by arm.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import wandb

from analysis.claims.judge import RUNS, claims_json, claims_table, judge_claims, sweeps_at_hand
from analysis.draw.figure import as_bytes
from analysis.draw.table import Table
from analysis.report.sections import tables_of
from analysis.runs.files import RunFolderError
from analysis.runs.load import add_source_arguments, load_source
from analysis.sweeps.figures import figures_of
from analysis.sweeps.kept import KeptSweep
from klear_lab.metrics import panel_groups

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def workspace_of(kept: KeptSweep, entity: str, project: str) -> "Workspace":
    """Returns the definition of a sweep's comparison; it sends nothing before its `save`."""
    import wandb_workspaces.reports.v2 as panels  # not above: takes seconds, and only this needs it
    import wandb_workspaces.workspaces as ws

    scores = [f"eval/{name}/avg@{kept.runs[0]['samples']}" for name in sorted(kept.runs[0]["scores"])]
    sections = [
        ws.Section(name=name, panels=[panels.LinePlot(x="rl/step", y=[y]) for y in metrics], is_open=True)
        for name, metrics in {"Scores": scores, **panel_groups()}.items()
    ]
    sweep, keys = kept.about["sweep"], [*kept.runs[0]["arm"]]
    runs = ws.RunsetSettings(
        filters=[ws.Metric("group") == sweep],
        groupby=[ws.Config(key if "." in key else f"{key}.name") for key in keys],
    )
    return ws.Workspace(
        entity=entity, project=project, name=f"{sweep}: {', '.join(keys)}", sections=sections, runset_settings=runs
    )


def push(kept: KeptSweep, claims: Table, settings: dict[str, Any], offline: bool) -> str:
    """Logs a sweep's tables and figures as a run of its group; returns where they are."""
    sweep = kept.about["sweep"]
    with wandb.init(
        **settings,
        mode="offline" if offline else "online",
        id=f"report-{sweep}",
        resume=None if offline else "allow",  # the report of the same sweep, made anew
        name=f"report of {sweep}",
        group=sweep,
        job_type="report",
        config={"command": kept.about["command"], "runs": [run["run_id"] for run in kept.runs]},
        settings=wandb.Settings(silent=True, console="off"),
    ) as run:
        tables = [*(make() for make in tables_of(kept).values()), claims]
        shown: dict[str, Any] = {f"tables/{table.name}": wandb_table(table) for table in tables}
        for stem, draw in figures_of(kept).items():
            picture = PIL.Image.open(io.BytesIO(as_bytes(draw(False), "png")))
            shown[f"figures/{stem}"] = wandb.Image(picture, caption=stem)
        run.log(shown)
        return str(Path(run.dir).parent if offline else run.url)


def wandb_table(table: Table) -> wandb.Table:
    """Turns printed cells into a wandb table."""
    columns: list[str | int] = [*table.flat_names()]
    return wandb.Table(columns=columns, data=[list(row) for row in table.rows])


def main(argv: Sequence[str]) -> int:
    """Sends what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis wandb", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help="default: every sweep that has finished runs")
    parser.add_argument("--project", default="klear_lab", help="default: klear_lab")
    parser.add_argument("--entity", help="default: yours")
    parser.add_argument("--offline", action="store_true", help="write files for wandb sync")
    parser.add_argument(
        "--workspace", type=Path, metavar="FILE", help="write the workspace's definition; send nothing"
    )
    parser.add_argument("--dir", type=Path, default=Path(), help="folder of wandb's own files (default: here)")
    add_source_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        at_hand = sweeps_at_hand(load_source(parser, arguments))
        kept = {name: one for name, (one, source) in at_hand.items() if source == RUNS}
        names = arguments.sweeps or [*kept]
        for name in names or ["any sweep"]:
            if name not in kept:
                raise RunFolderError(f"{name}: no finished runs; there are some of {', '.join(kept) or 'none'}")
        if arguments.workspace is not None:
            definitions = [workspace_of(kept[name], arguments.entity or "", arguments.project) for name in names]
            texts = [one._to_model().model_dump_json(by_alias=True, indent=1) for one in definitions]
            arguments.workspace.write_text("[\n" + ",\n".join(texts) + "\n]\n", encoding="utf-8")
            print(f"written: {arguments.workspace}")
            return 0
        arguments.dir.mkdir(parents=True, exist_ok=True)
        claims = claims_table(claims_json(judge_claims(at_hand)))
        for name in names:
            settings = {"project": arguments.project, "entity": arguments.entity, "dir": arguments.dir}
            print(f"{name}: {push(kept[name], claims, settings, arguments.offline)}")
            if not arguments.offline:
                entity = arguments.entity or str(wandb.Api().default_entity)
                print(f"workspace: {workspace_of(kept[name], entity, arguments.project).save().url}")
    except (RunFolderError, wandb.errors.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
