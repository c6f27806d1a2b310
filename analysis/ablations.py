"""The report's sections on sweeps: each with its question, command, scores, differences, curves, a line an arm.

A section is made from a sweep's numbers, whether they come from runs or from the kept results. To add a sweep: a
file in sweeps/ and, for a figure of its own, an entry in METRICS.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from analysis.claim_verdicts import RUNS
from analysis.curves import curves_figure, panels_of
from analysis.effects import final_score
from analysis.figures import STYLE, save
from analysis.results import SWEEPS, KeptSweep, command_of, describe_arm, difference_table, run_time, score_table
from analysis.table_formats import DASH, Table, to_latex, to_markdown

# Metrics drawn beside the benchmarks' scores; of those that a sweep's runs have.
METRICS = {
    "figure2": ("optim/grad_norm", "policy/entropy"),
    "figure3": ("reward/mean",),
    "figure4": ("reward/mean",),
    "figure5": ("reward/mean", "optim/updates"),
    "overlong": ("rollout/truncated_fraction", "optim/grad_norm"),
    "collapse": ("policy/entropy", "clip/low_fraction"),
    "ce_gppo": ("policy/entropy", "clip/gradient_share"),
    "table6": ("loss/sft", "policy/entropy"),
}
MOST_ARMS = 14  # of a figure; more can't be told apart


@dataclass(frozen=True)
class Section:
    """question, caveats: from the sweep's own file. figure: PNG as a data URI, "" where there are no curves."""

    sweep: str
    question: str
    command: str
    source: str
    made: str
    tables: list[Table]
    figure: str


def sections(sweeps: Mapping[str, tuple[KeptSweep, str]], out_dir: Path) -> list[Section]:
    """One section a sweep, in the order of their names.

    Sweeps of the runs at hand have a figure, and their files are written into `out_dir`; kept results are shown
    as tables alone.
    """
    made = []
    for name, (kept, source) in sorted(sweeps.items()):
        tables = [score_table(kept), difference_table(kept), arm_table(kept)]
        figure = ""
        if source == RUNS:
            write_files(kept, tables, out_dir)
            if (drawn := curves_of(kept)) is not None:
                save(drawn, out_dir / f"{name}_curves")
                figure = png_uri(drawn)
        about = f"{len(kept.runs)} runs, {run_time(kept)}, commit {kept.about['git_commit']}"
        made.append(Section(name, question_of(name), command_of(name), source, about, tables, figure))
    return made


def write_files(kept: KeptSweep, tables: list[Table], out_dir: Path) -> None:
    """The tables as Markdown and LaTeX, and every run's final scores as CSV."""
    for table in tables:
        (out_dir / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out_dir / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    kept.scores().to_csv(out_dir / f"{kept.about['sweep']}_scores.csv", index=False)


def question_of(sweep: str) -> str:
    """The comment at the head of the sweep's file, without its command; "" for a sweep without a file."""
    path = SWEEPS / f"{sweep}.yaml"
    if not path.exists():
        return ""
    lines = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(line for line in lines if line and not line.startswith(("@package", "python -m")))


def curves_of(kept: KeptSweep) -> Figure | None:
    """Scores and the sweep's metrics over steps; None without RL, or with too many arms for one figure."""
    name = kept.about["sweep"]
    arms = {describe_arm(run["arm"]) for run in kept.runs}
    evaluated = max(len(found) for run in kept.runs for found in run["scores"].values())
    if evaluated < 3 or len(arms) > MOST_ARMS or len({tuple(run["scores"]) for run in kept.runs}) > 1:
        return None
    panels = [*sorted(kept.runs[0]["scores"]), *METRICS.get(name, ())]
    known = [panel for panel in panels if panel in panels_of(kept)]
    seeds = len({run["seed"] for run in kept.runs})
    return curves_figure(kept, known, f"{name} (mean and range of {seeds} seeds)")


def arm_table(kept: KeptSweep) -> Table:
    """For each arm the interquartile mean of its final scores and how likely it beats the sweep's first arm.

    Over seeds; a run's score is the mean of its benchmarks. Probability of improvement: the share of pairs of runs
    in which the arm scores higher, ties counted half (Mann and Whitney).
    """
    rows = [{"arm": describe_arm(run["arm"]), "score": final_score(run)} for run in kept.runs]
    frame = pd.DataFrame(rows).dropna()
    order = [row[0] for row in score_table(kept).rows if row[0] in set(frame["arm"])]
    first = frame.loc[frame["arm"] == order[0], "score"].to_numpy()
    cells = []
    for arm in order:
        own = frame.loc[frame["arm"] == arm, "score"].to_numpy()
        better = stats.mannwhitneyu(own, first).statistic / (len(own) * len(first))
        cells.append([arm, f"{stats.trim_mean(own, 0.25):.3f}", DASH if arm == order[0] else f"{better:.2f}"])
    caption = (
        "Interquartile mean of the final scores over seeds (mean of the benchmarks), and the probability that a "
        f"run of the arm beats one of {order[0]}. No verdict: see the claims."
    )
    header = [("", name) for name in ("arm", "IQM", f"P(beats {order[0]})")]
    return Table(f"{kept.about['sweep']}_arms", caption, header, cells)


def png_uri(figure: Figure) -> str:
    """A figure as a data URI; as PNG, because a dozen SVGs of many lines would make the page too large."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def remove_files(out_dir: Path) -> None:
    """Removes what an earlier report wrote about sweeps."""
    for sweep in (path.stem for path in SWEEPS.glob("*.yaml")):
        for part in ("scores", "differences", "arms", "curves"):
            for form in ("md", "tex", "csv", "png", "svg", "pdf"):
                (out_dir / f"{sweep}_{part}.{form}").unlink(missing_ok=True)
