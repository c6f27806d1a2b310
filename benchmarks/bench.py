"""What klear_lab takes beside what people use today, on the same work and the same machine, in turn.

    python benchmarks/bench.py                       all parts; writes results.json and the tables of README.md
    python benchmarks/bench.py --parts rl_step,sft   some; the others stay as they are
    python benchmarks/bench.py --check               measures again and compares with results.json

Each repetition runs every side once, in a process of its own, one after the other; the figures are medians and
ranges over repetitions. `--check` looks at ratios to the peer in the same run, so that another or a busy machine
says little, and writes nothing. Where one grew by more than 10 %, its part is measured again with at least 5
repetitions, and it ends with 1 where that ratio is still worse. A side whose environment isn't set up is skipped,
and named.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout's packages, installed or not

from bench_parts.environments import Environment  # noqa: E402
from bench_parts.figures import OURS, Part, not_measured, regressions, spread  # noqa: E402
from bench_parts.page import write_tables  # noqa: E402
from bench_parts.work import Work, run  # noqa: E402

PARTS = ("rl_step", "sft", "sampling", "head", "programs", "commands", "growth", "sweep")
THREADS = (1, 2)
REPEATS = 5
Found = dict[int, dict[str, list[dict[str, float]]]]  # what each side found, by threads and side


def measure(name: str, work: Work, repeats: int, command: str, pictures: Path | None) -> Part:
    """Measures one part: its sides in turn, `repeats` times after a warm-up.

    Draws its picture, if it has one, into the folder `pictures`.
    """
    part = import_module(f"bench_parts.{name}")
    found: Found = {}
    repeats = min(repeats, getattr(part, "REPEATS", repeats))
    environments: dict[str, Environment] = getattr(part, "ENVIRONMENTS", {})
    missing = {side: own for side, own in environments.items() if own.python is None}
    for side, own in missing.items():
        print(f"{name}: {side} is skipped: `make {own.target}` sets up its environment", file=sys.stderr)
    pythons = {side: own.python for side, own in environments.items() if side not in missing}
    for threads in getattr(part, "THREADS", THREADS):
        sides: dict[str, list[dict[str, Any]]] = {side: [] for side in part.SIDES if side not in missing}
        for number in range(repeats):
            for side, values in sides.items():
                print(f"{name}: {side}, {threads} thread(s), {number + 1} of {repeats}", file=sys.stderr)
                here = Work(work.folder, threads, work.small, number)
                values.append(in_process(name, side, here, pythons.get(side) or Path(sys.executable)))
        found[threads] = sides
    if pictures is not None and hasattr(part, "draw"):
        part.draw(found, pictures)
    used = {own for side, own in environments.items() if side not in missing}
    why = "not measured, its environment is not set up"
    notes = [*part.notes(found), *(f"{side}: {why} (`make {own.target}`)." for side, own in missing.items())]
    today = date.today().isoformat()
    return Part(part.TITLE, command, today, machine(used), repeats, part.figures(found), notes)


def check(name: str, kept: Part, work: Work, repeats: int, command: str) -> list[str]:
    """Measures a part, again where a figure is worse than kept; returns lines for those that are so both times."""
    part = measure(name, work, repeats, command, None)
    show(part)
    for line in not_measured(kept, part):
        print(line, flush=True)
    worse = regressions(kept, part)
    if not worse:
        return []
    print("Worse than kept, and so measured again:", *worse.values(), sep="\n  ", flush=True)
    again = measure(name, work, max(repeats, REPEATS), command, None)
    show(again)
    return [line for key, line in regressions(kept, again).items() if key in worse]


def show(part: Part) -> None:
    """Prints a line for each figure."""
    for figure in part.figures:
        told = "" if figure.ratio is None else f", {figure.ratio:.2f} of {figure.peer}'s"
        print(f"{figure.what}: {spread(figure.values[OURS], figure.unit)}{told}", flush=True)


def in_process(name: str, side: str, work: Work, python: Path) -> dict[str, Any]:
    """Measures one side of a part once, in a process of its own."""
    threads = str(work.threads)
    env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    words = ["--side", name, side, "--threads", threads, "--repetition", str(work.repetition)]
    words += ["--work", str(work.folder), *["--small"] * work.small]
    done = run([str(python), str(Path(__file__).resolve()), *words], env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine(used: Iterable[Environment]) -> str:
    """Returns what the numbers depend on; `used` are the environments of peers that were measured."""
    versions = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    versions += sorted(own.version for own in used)
    own = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return ", ".join([own, *versions])


def arguments() -> argparse.Namespace:
    """Reads the command line; ends with a message where it makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each side (default: 5)")
    parser.add_argument("--check", action="store_true", help="compares with results.json, and writes nothing")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of results.json and README.md")
    parser.add_argument(
        "--work", type=Path, help="a folder for runs, which stay there; a temporary one without it"
    )
    parser.add_argument("--small", action="store_true", help="sizes of a test, whose numbers mean nothing")
    parser.add_argument("--side", nargs=2, metavar=("PART", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--repetition", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := {*given.parts.split(",")} - {*PARTS}:
        parser.error(f"--parts: no {', '.join(sorted(unknown))}; must be some of {', '.join(PARTS)}")
    if given.repeats < 1:
        parser.error(f"--repeats {given.repeats}: must be at least 1")
    if given.small and given.out == HERE and not given.side:
        parser.error("--out: the tables in benchmarks are for the full sizes alone; name another folder")
    return given


def measure_side(given: argparse.Namespace) -> None:
    """Prints what one side finds, as JSON."""
    import torch

    torch.set_num_threads(given.threads)
    name, side = given.side
    work = Work(given.work, given.threads, given.small, given.repetition)
    print(json.dumps(import_module(f"bench_parts.{name}").SIDES[side](work)))


def main() -> int:
    """Measures the parts in turn, and writes or compares after each."""
    given = arguments()
    if given.side:
        measure_side(given)
        return 0
    kept_file = given.out / "results.json"
    saved: dict[str, Any] = json.loads(kept_file.read_text()) if kept_file.exists() else {}
    kept = {name: Part.of(part) for name, part in saved.items()}
    command = f"python benchmarks/bench.py --parts {given.parts} --repeats {given.repeats}"
    worse: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        work = Work(given.work or Path(temporary), 1, given.small)
        work.folder.mkdir(parents=True, exist_ok=True)
        work.prepare()
        for name in given.parts.split(","):
            if given.check and name not in kept:
                print(f"{name}: nothing is kept to compare with; the same command without --check keeps it")
                continue
            if given.check:
                worse += check(name, kept[name], work, given.repeats, command)
                continue
            kept[name] = measure(name, work, given.repeats, command, given.out)
            show(kept[name])
            ordered = {known: kept[known] for known in PARTS if known in kept}
            kept_file.write_text(json.dumps({n: p.saved() for n, p in ordered.items()}, indent=1) + "\n")
            if (given.out / "README.md").exists():
                write_tables(given.out / "README.md", ordered)
    if worse:
        print("Worse than the kept results by more than 10 %, twice:", *worse, sep="\n  ")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
