"""Sends wandb what the report says of a sweep, beside the sweep's own runs: tables, figures and a workspace.

    python -m analysis wandb                         # every sweep of runs/, online (needs a login: wandb login)
    python -m analysis wandb figure2 --offline       # one sweep, to be sent later by wandb sync
    python -m analysis wandb 0606bb5f4b1f            # one run, by its id or as much of it as only it has
    python -m analysis wandb figure2 --workspace workspace.json   # the workspace's definition, as a file

A run named "report of SWEEP" joins the sweep's group with its tables and figures. Online, it also saves a
workspace of the sweep's comparison: scores and the panels of klear_lab/metrics.py over RL steps, grouped by arm.

WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, WANDB_DISABLED, WANDB_TAGS and WANDB_DIR hold where no option says
otherwise; name and group of the report are its sweep's.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import wandb

from analysis.claims.judge import KEPT, claims_json, claims_table, judge_claims, sweeps_at_hand
from analysis.claims.regime import AtHand
from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import add_source_arguments, load_source
from analysis.draw.figure import as_bytes
from analysis.draw.output import check_file, file_for, folder_for, format_for, make_folder, out_help, replace_file
from analysis.draw.table import Table
from analysis.errors import RunFolderError
from analysis.report.sections import tables_of
from analysis.runs.choose import runs_named
from analysis.runs.damage import without_damaged
from analysis.runs.frames import RunFrames, sweeps_of
from analysis.sweeps.figures import figures_of
from analysis.sweeps.from_runs import keep_single, keep_sweep
from analysis.sweeps.kept import KeptSweep, commands_words
from klear_lab.config import Config
from klear_lab.metrics import panel_groups

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def workspace_of(kept: KeptSweep, entity: str, project: str) -> "Workspace":
    """Returns the definition of a sweep's comparison; it sends nothing before its `save`."""
    import wandb_workspaces.reports.v2 as panels  # not above: takes seconds, and only this needs it
    import wandb_workspaces.workspaces as ws

    scores = [f"eval/{name}/avg@{kept.runs[0].get('samples')}" for name in sorted(kept.runs[0]["scores"])]
    sections = [
        ws.Section(name=name, panels=[panels.LinePlot(x="rl/step", y=[y]) for y in metrics], is_open=True)
        for name, metrics in {"Scores": scores, **panel_groups()}.items()
    ]
    sweep, keys = kept.about["sweep"], [*kept.runs[0]["arm"]]
    runs = ws.RunsetSettings(
        filters=[ws.Metric("group") == sweep],
        groupby=[ws.Config(logged_name(key)) for key in keys],
    )
    return ws.Workspace(
        entity=entity, project=project, name=f"{sweep}: {', '.join(keys)}", sections=sections, runset_settings=runs
    )


def logged_name(key: str) -> str:
    """Returns where a run's config in wandb has its value of a swept key.

    A group that sets keys elsewhere, such as ladder, has none of its own there; what the run recorded has.
    """
    if "." in key:
        return key
    return f"{key}.name" if key in {known.name for known in fields(Config)} else f"klear_lab.arm.{key}"


def push(kept: KeptSweep, claims: Table, settings: dict[str, Any], offline: bool, group: str | None) -> str:
    """Logs a sweep's tables and figures as a run of its group; returns where they are."""
    sweep = kept.about["sweep"]
    with wandb.init(
        **settings,
        mode="offline" if offline else "online",
        id=f"report-{re.sub(r'[^A-Za-z0-9_.-]', '-', sweep)}"[:128],
        resume=None if offline else "allow",  # the report of the same sweep, made anew
        name=f"report of {sweep}",
        group=group,
        job_type="report",
        config={"command": commands_words(kept), "runs": [run["run_id"] for run in kept.runs]},
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
    names, rows = table.flat()
    columns: list[str | int] = [*names]
    return wandb.Table(columns=columns, data=[list(row) for row in rows])


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Sends what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis wandb", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="SWEEP_OR_RUN", help="default: every sweep that has finished runs"
    )
    parser.add_argument("--project", help="default: $WANDB_PROJECT, else klear_lab")
    parser.add_argument("--entity", help="default: $WANDB_ENTITY, else yours")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--offline", action="store_true", help="write files for wandb sync")
    mode.add_argument("--online", action="store_true", help="send, also where $WANDB_MODE says offline")
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="PATH",
        help=f"write the workspace's definition; send nothing; {out_help(['json'], 'workspace.json')}",
    )
    parser.add_argument("--dir", type=Path, help="folder of wandb's own files (default: $WANDB_DIR, else here)")
    add_source_arguments(parser)
    arguments = parser.parse_args(argv)
    project = arguments.project or os.environ.get("WANDB_PROJECT") or "klear_lab"
    entity = arguments.entity or os.environ.get("WANDB_ENTITY") or None
    if arguments.workspace is not None:
        return write_workspaces(parser, arguments, entity or "", project)
    return send(parser, arguments, entity, project)


def write_workspaces(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, entity: str, project: str
) -> int:
    """Writes the definitions of the workspaces into the file asked for; returns the exit status."""
    ending = format_for(arguments.workspace, None, {"json": "json"}, "json", "a workspace is JSON")
    file = file_for(arguments.workspace, "workspace", ending)
    check_file(file)  # before what takes seconds
    kept, _ = without_damaged(load_source(parser, arguments), partial(chosen_sweeps, names=arguments.names))
    definitions = [workspace_of(one, entity, project) for one in kept]
    texts = [one._to_model().model_dump_json(by_alias=True, indent=1) for one in definitions]
    replace_file(file, ("[\n" + ",\n".join(texts) + "\n]\n").encode())
    print(f"written: {file}")
    return 0


def send(parser: argparse.ArgumentParser, arguments: argparse.Namespace, entity: str | None, project: str) -> int:
    """Sends reports and workspaces, or writes wandb's files of them; returns the exit status."""
    offline = is_offline(arguments)
    name_variables_without_effect()
    folder = arguments.dir or Path(os.environ.get("WANDB_DIR") or ".")
    make_folder(folder_for(folder, "what wandb writes"))
    frames = load_source(parser, arguments)
    kept, claims = without_damaged(frames, partial(what_to_send, names=arguments.names))
    tags = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
    settings = {"project": project, "entity": entity, "dir": folder, "tags": tags}
    try:
        for one in kept:
            sweep = one.about["sweep"]
            group = frames.records.get(sweep, {}).get("sweep", sweep)  # a single run's is that of its sweep
            print(f"{sweep}: {push(one, claims, settings, offline, group)}")
            if not offline:
                owner = entity or str(wandb.Api().default_entity)
                print(f"workspace: {workspace_of(one, owner, project).save().url}")
    except (wandb.errors.Error, ValueError) as error:  # ValueError: a WANDB_ variable that wandb itself refuses
        raise RunFolderError(f"wandb: {error}") from error
    return 0


def what_to_send(frames: RunFrames, names: Sequence[str]) -> tuple[list[KeptSweep], Table]:
    """Returns the `chosen_sweeps` and all verdicts. Raises what that does."""
    chosen, at_hand = chosen_sweeps(frames, names)
    return chosen, claims_table(claims_json(judge_claims(at_hand)))


def chosen_sweeps(frames: RunFrames, names: Sequence[str]) -> tuple[list[KeptSweep], AtHand]:
    """Returns the sweeps and runs named, every prepared sweep with finished runs for no names, and all at hand.

    Raises RunFolderError for a name that has no finished runs, and DamagedRunsError.
    """
    at_hand = sweeps_at_hand(frames)
    kept = {name: one for name, (one, source) in at_hand.items() if source != KEPT}
    for name in names or [*kept] or ["any sweep"]:
        if name not in kept:
            kept[name] = named(frames, name, [*kept])
    return [kept[name] for name in dict.fromkeys(names or kept)], at_hand


def named(frames: RunFrames, name: str, known: Sequence[str]) -> KeptSweep:
    """Returns the sweep or run of a name. Raises RunFolderError where there is no finished one."""
    if any(name in sweeps_of(record) for record in frames.records.values()):
        return keep_sweep(frames, name)
    try:
        (run_id,) = runs_named(frames, name)
    except RunFolderError as error:
        raise RunFolderError(
            f"{name}: no finished runs; there are some of {', '.join(known) or 'none'} ({error})"
        ) from error
    return keep_single(frames, run_id)


def is_offline(arguments: argparse.Namespace) -> bool:
    """Tells whether to write files instead of sending them. Raises RunFolderError where wandb is switched off."""
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if arguments.offline or arguments.online:
        return bool(arguments.offline)
    disabled = os.environ.get("WANDB_DISABLED", "").strip().lower() in ("1", "true", "yes", "y", "on")
    if disabled or mode == "disabled":
        variable = "WANDB_DISABLED" if disabled else "WANDB_MODE"
        raise RunFolderError(
            f"{variable}={os.environ[variable]}: nothing is sent; --online or --offline says otherwise"
        )
    if mode not in ("", "online", "run", "offline", "dryrun"):
        raise RunFolderError(f"WANDB_MODE={mode}: must be one of online, offline, disabled")
    return mode in ("offline", "dryrun")


def name_variables_without_effect() -> None:
    """Names on stderr the variables that a report can't follow."""
    for variable in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_RESUME"):
        if os.environ.get(variable):
            print(
                f"{variable}={os.environ[variable]} has no effect: a report's name, id and group are its sweep's",
                file=sys.stderr,
            )
