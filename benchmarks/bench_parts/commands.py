"""What a user waits for at the command line; `import torch` in a new interpreter is the measure beside it."""

import shutil
import sys
import time
from pathlib import Path

from bench_parts.figures import OURS, Figure
from bench_parts.work import Work, run

TITLE = "Commands"
IMPORT = "import torch"
THREADS = (1,)
REPORTS = {2: None, 100: 10.0, 1000: 40.0}  # runs: at most so many seconds
NAMES = {
    "help": ("`python -m klear_lab.run --help`", 0.6),
    "skip": ("a sweep of two arms that are finished", 6.0),
    **{f"report {n}": (f"`python -m analysis` on {n:,} runs", limit) for n, limit in REPORTS.items()},
}


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of each command."""
    from load_runs import multiply

    runs, drawings = work.folder / "two_arms", work.folder / "drawings"
    sweep = work.settings("clip_method=gppo,cispo", f"cache_dir={work.runs / 'cache'}", "-m", runs=runs)
    if not runs.exists():
        work.command(*sweep)
    originals = sorted(path.parent for path in runs.glob("*/probes.jsonl"))
    found = {"help": seconds("klear_lab.run", "--help"), "skip": seconds("klear_lab.run", *sweep)}
    reports = {f"report {count}": count for count in REPORTS}
    if work.repetition == 0:
        shutil.rmtree(drawings, ignore_errors=True)
        reports = {"first report": 2, **reports}
    for key, count in reports.items():
        folder = work.folder / f"runs_{count}"
        if not folder.exists():
            folder.mkdir()
            multiply(originals, min(count, 4) if work.small else count, folder)
        words = ["--runs", str(folder), "--out", str(work.folder / f"report_{count}")]
        found[key] = seconds("analysis", *words, XDG_CACHE_HOME=str(drawings))
    return found


def measure_import(work: Work) -> dict[str, float]:
    """Returns the seconds of a new interpreter that imports torch."""
    started = time.perf_counter()
    run([sys.executable, "-c", "import torch"])
    return {"import": time.perf_counter() - started}


SIDES = {OURS: measure_ours, IMPORT: measure_import}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns a figure for each command."""
    (sides,) = found.values()
    imports = [one["import"] for one in sides[IMPORT]]
    return [
        Figure(what, "s", {OURS: [one[key] for one in sides[OURS]], IMPORT: imports}, IMPORT, at_most=limit)
        for key, (what, limit) in NAMES.items()
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says what the runs are, and what the first report takes."""
    (sides,) = found.values()
    first = sides[OURS][0]["first report"]
    return [
        "Reports are on copies of two runs, one of each arm, as members of sweep figure2: half as many seeds as "
        "runs, equal but for their numbers, with token records.",
        "Drawings that are the same in all reports are kept in the user's cache, where these reports find them. "
        f"The first one, on two runs, without them and without matplotlib's list of fonts, took {first:.3g} s.",
    ]


def seconds(module: str, *words: str, **environment: str) -> float:
    """Returns the seconds of a command of ours, from its start to its end."""
    started = time.perf_counter()
    run([sys.executable, "-m", module, *words], cwd=Path.cwd(), env=environment)
    return time.perf_counter() - started
