"""How long many run folders take to load: copies of finished ones, each with its own id.

    python benchmarks/load_runs.py --runs runs [--folders 10000]

The copies are hard links but for run.json and config.yaml, so they need little space and are read from memory, as
runs just made are. Each has a seed of its own for its arm, and all are members of sweep figure2.
"""

import argparse
import json
import os
import re
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from analysis.runs.files import read_record
from analysis.runs.frames import load_runs

SWEEP = "figure2"
OWN = ("run.json", "config.yaml")  # files that a copy has of its own


def multiply(originals: list[Path], count: int, target: Path) -> None:
    """`count` run folders in `target`, the originals in turn, as runs of `SWEEP` with seeds from 0 on."""
    for number, original in enumerate(islice(cycle(originals), count)):
        folder, seed = target / f"{number:012d}", number // len(originals)
        folder.mkdir()
        for path in (*original.iterdir(), *original.glob("rollouts/*")):
            copy = folder / path.relative_to(original)
            if path.is_file() and path.name not in OWN:
                copy.parent.mkdir(exist_ok=True)
                os.link(path, copy)
        record = read_record(original / "run.json")
        record |= {"run_id": folder.name, "seed": seed, "sweep": SWEEP, "sweeps": {SWEEP: record["arm"]}}
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
        config = (original / "config.yaml").read_text(encoding="utf-8")
        for key, value in (("seed", seed), ("sweep_name", SWEEP)):
            config = re.sub(rf"^{key}: .*$", f"{key}: {value}", config, flags=re.MULTILINE)
        (folder / "config.yaml").write_text(config, encoding="utf-8")


def main() -> None:
    """Prints what was loaded, and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of finished runs (default: runs)")
    parser.add_argument("--folders", type=int, default=10_000)
    arguments = parser.parse_args()
    records = sorted(arguments.runs.glob("*/run.json"))
    originals = [path.parent for path in records if read_record(path)["status"] == "finished"]
    if not originals:
        parser.error(f"{arguments.runs}: no finished run")
    # beside the originals: hard links don't cross file systems
    with tempfile.TemporaryDirectory(dir=arguments.runs.parent) as folder:
        multiply(originals, arguments.folders, Path(folder))
        started = time.perf_counter()
        frames = load_runs(Path(folder))
        seconds = time.perf_counter() - started
    rows = f"{len(frames.metrics):,} metrics rows of {frames.metrics.shape[1] - 3} metrics"
    print(f"{len(frames.runs):,} copies of {len(originals)} runs, {rows}, {len(frames.scores):,} scores")
    print(f"{seconds:.1f} s")


if __name__ == "__main__":
    main()
