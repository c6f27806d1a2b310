"""What one GPU does with klear_lab, in under 8 minutes and without a network; writes gpu.json and gpu.md.

    python benchmarks/gpu.py                                all parts, on a CUDA device
    python benchmarks/gpu.py --parts head,long              some; the others' numbers stay as they are
    python benchmarks/gpu.py --device cpu --small --out X   all on a CPU, so small that the numbers mean nothing

Each part runs in a process of its own, which a time limit ends and whose memory is free afterwards. A part that
fails or is cut keeps the rows that it had, and gets one more with the reason.
"""

import argparse
import json
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from gpu_parts.sizes import FULL, SMALL, Job
from gpu_parts.tables import TITLES, page

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # klear_lab of this checkout, installed or not

# In the order in which they run, the quick ones first: seconds after which a part is cut.
LIMITS = {
    "model": 60,
    "head": 45,
    "long": 60,
    "update": 75,
    "trl": 75,
    "sampler": 180,
    "command": 220,
    "vllm": 120,
}
WHOLE = 460  # seconds after which everything is cut
SERVER = multiprocessing.get_context("forkserver")
# Imported once for all parts on a CPU. With a GPU each part imports for itself, since what starts CUDA can't fork.
IMPORTED = ["klear_lab.stages", "transformers.models.qwen3.modeling_qwen3"]


def work(name: str, job: Job, rows: Path, log: Path) -> None:
    """Runs one part in this process, the leader of a group, so that what it starts ends with it."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from gpu_parts.measure import Report

    report = Report(rows)
    with report.guarded("failed"):
        import torch

        if job.small:
            torch.set_num_threads(1)
        (rows.with_suffix(".machine")).write_text(machine(job.device))
        function_of(name)(job, report)


def function_of(name: str) -> Any:
    """Returns a part's function; imported late, so that a missing library fails one part alone."""
    if name == "model":
        from gpu_parts.model import make_model as function
    elif name == "command":
        from gpu_parts.command import run_command as function
    elif name == "sampler":
        from gpu_parts.sampling import sample_transformers as function
    elif name == "vllm":
        from gpu_parts.sampling import sample_vllm as function
    elif name == "trl":
        from gpu_parts.against_trl import run_loops as function
    else:
        from gpu_parts import training

        functions = {"head": training.train_head, "long": training.train_long, "update": training.train_update}
        return functions[name]
    return function


def machine(device: str) -> str:
    """Returns the card's name and memory, and the versions that matter."""
    import torch
    import transformers

    card = "CPU"
    if device == "cuda":
        card = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{card}, Python {python}, torch {torch.__version__}, transformers {transformers.__version__}"


def run_part(name: str, job: Job, seconds: float, command: str) -> dict[str, Any]:
    """Runs a part for at most so many seconds; returns what the page needs."""
    rows, log = job.work / f"{name}.jsonl", job.work / f"{name}.log"
    rows.touch()
    started = time.perf_counter()
    problem = None
    if seconds <= 5:
        problem = f"not started: the whole has {WHOLE} s; run --parts {name}"
    else:
        process = SERVER.Process(target=work, args=(name, job, rows, log))
        process.start()
        process.join(seconds)
        if process.is_alive():
            problem = f"cut after {seconds:.0f} s"
        process.kill()
        end_group(process.pid)
        process.join()
        if problem is None and process.exitcode != 0:
            problem = f"the process ended with {process.exitcode}: {tail(log)}"
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    if problem is not None:
        found.append({"what": "the rest", "value": problem, "unit": "", "at_most": None})
    there = rows.with_suffix(".machine")
    return {
        "command": command,
        "date": date.today().isoformat(),
        "seconds": time.perf_counter() - started,
        "machine": there.read_text() if there.exists() else "unknown machine",
        "rows": found,
    }


def end_group(pid: int | None) -> None:
    """Ends a part's process and whatever it has started."""
    try:
        os.killpg(pid or 0, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended with all that it started


def tail(log: Path) -> str:
    """Returns the last line of a log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:300] if lines else "it printed nothing"


def write(out: Path, parts: dict[str, Any]) -> None:
    """Writes both files."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(parts, indent=2) + "\n")
    (out / "gpu.md").write_text(page(parts))


def read_arguments() -> argparse.Namespace:
    """Reads the command line; ends with a message where it makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a test on a CPU")
    parser.add_argument("--parts", default=",".join(LIMITS), help=f"some of {','.join(LIMITS)}")
    parser.add_argument("--out", type=Path, help="the folder of gpu.json and gpu.md; benchmarks without it")
    parser.add_argument("--work", type=Path, help="a folder for the model, run folders and logs, which stay there")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="after which everything is cut")
    parser.add_argument("--batch-sequences", type=int, help="sampled at once; as many as fit without it")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts.split(",")) - set(LIMITS):
        parser.error(f"--parts: no {', '.join(sorted(unknown))}; must be some of {', '.join(LIMITS)}")
    if (arguments.device == "cpu" or arguments.small) and arguments.out is None:
        parser.error("--out: the page in benchmarks is for a GPU's full run alone; name another folder")
    return arguments


def main() -> None:
    """Runs the parts in turn, and writes the files after each."""
    arguments = read_arguments()
    started = time.perf_counter()
    out = arguments.out or HERE
    before = out / "gpu.json"
    parts = json.loads(before.read_text()) if before.exists() else {}
    chosen = arguments.parts.split(",")
    command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    SERVER.set_forkserver_preload(IMPORTED if arguments.device == "cpu" else [])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = SMALL if arguments.small else FULL
        job = Job(arguments.device, sizes, folder / "model", folder, arguments.small, arguments.batch_sequences)
        for name, limit in LIMITS.items():
            if name in chosen or name == "model":  # the others load it
                left = arguments.seconds - (time.perf_counter() - started)
                parts[name] = run_part(name, job, min(limit, left), command)
                parts = {known: parts[known] for known in TITLES if known in parts}
                write(out, parts)
                print(f"{name}: {parts[name]['seconds']:.1f} s", flush=True)
    print(f"{time.perf_counter() - started:.0f} s; see {out / 'gpu.md'}")


if __name__ == "__main__":
    main()
