"""Synthetic run folders: what the tests of the analysis read instead of real runs.

The fixtures `write_run` and `write_sweep` hand out functions that write folders in the form of the run-folder
contract; every argument of `run_folder` is a thing some test varies. Configs are the real one, composed once, with
what a test changes.
"""

import copy
import functools
import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from klear_lab.config import register

ROOT = Path(__file__).parents[2]
STEPS = 12
PARAMETERS = {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": None}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", "--window-size=1300,900"),
]
SPEED = {"clip_higher": 0.25, "cispo": 0.3, "gppo": 0.4}


@functools.cache
def real_config() -> dict[str, Any]:
    """The config of a run of Figure 2's sweep at scale=small, as its config.yaml holds it."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", ["scale=small", "sweep=figure2", "rl.learning_rate=2e-4"])
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    return config


def merge(config: dict[str, Any], changes: dict[str, Any]) -> None:
    """Puts changes into a config, key by key where both hold keys."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = value


def run_folder(
    folder: Path,
    method: str = "gppo",
    seed: int = 0,
    *,
    status: str = "finished",
    steps: int = STEPS,
    evaluated: tuple[int, ...] = (0, 4, 8, 12),
    score: Callable[[int], float] | None = None,
    clip: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    error: str | None = None,
    run_id: str | None = None,
    started: str = "2026-01-01T10:00:00",
    command: list[str] | None = None,
    prompts: int = 20,
    samples: int = 4,
    sweep: str = "figure2",
) -> Path:
    """Write runs/<run_id>/ with the four files and return its path.

    score: share of correct responses at a step (rounded to whole responses). settings: what to change in the
    config, nested as its keys are.
    """
    clip_method = {"name": method, **PARAMETERS, **(clip or {})}
    extra = "".join(f"-{key}{value}" for key, value in {**(clip or {}), **(settings or {})}.items())
    run_id = run_id or f"{method}-{seed}{''.join(c for c in extra if c.isalnum() or c in '-.')}"
    run = folder / run_id
    run.mkdir(parents=True)
    record = {
        "run_id": run_id,
        "status": status,
        "sweep": sweep,
        "arm": {"clip_method": method},
        "sweeps": {sweep: {"clip_method": method}},
        "seed": seed,
        "stages": {
            "sft": {"seconds": 61.0, "cache_key": "abc", "from_cache": seed > 0},
            "rl": {"seconds": 48.4, "cache_key": None, "from_cache": False},
        },
        "git_commit": "0123abcd",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"device": "cpu", "device_name": "x86_64", "cpu_count": 2},
        "command": command or ["python", "-m", "klear_lab.run", "sweep=figure2", "-m"],
        "error": error,
        "started": started,
        "finished": "2026-01-01T10:02:00" if status == "finished" else None,
    }
    config = copy.deepcopy(real_config())
    merge(config, {"seed": seed, "runs_dir": str(folder), "clip_method": clip_method})
    merge(config, {"rl": {"steps": steps}, "eval": {"samples": samples}})
    merge(config, settings or {})
    lines = metric_rows(method, seed, steps, scored=0 in evaluated)
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    score = score or (lambda step: 0.4 + 0.5 * (1 - math.exp(-SPEED.get(method, 0.2) * step)) + 0.01 * (seed % 3))
    evaluation_rows(evaluated, score, prompts, samples).to_parquet(run / "evaluations.parquet")
    return run


def metric_rows(method: str, seed: int, steps: int, scored: bool) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with plausible values; no entropy of high-clipped tokens at every fifth step."""
    rows: list[dict[str, Any]] = [
        {"stage": "sft", "step": 1, "loss/sft": 2.0},
        {"stage": "rl", "step": 0, **({"eval/chain6/avg@4": 0.4} if scored else {})},
    ]
    for step in range(1, steps + 1):
        level = SPEED.get(method, 0.2) * (1 + 0.1 * seed)
        row = {
            "stage": "rl",
            "step": step,
            "clip/low_fraction": 0.004 * level * math.sqrt(step),
            "clip/high_fraction": 0.006 * level * math.sqrt(step),
            "clip/gradient_share": 0.0 if method == "clip_higher" else 0.1 * level,
            "policy/entropy": 0.08 * math.exp(-level * step / 10),
            "policy/entropy_high_clipped": None if step % 5 == 0 else 0.7 + 0.02 * seed,
            "policy/entropy_low_clipped": 0.6 - 0.01 * step * level,
            "policy/entropy_unclipped": 0.05,
            "optim/grad_norm": 0.3 + 0.2 * level + 0.05 * math.sin(step + seed),
        }
        rows.append(row)
    return rows


def evaluation_rows(
    steps: tuple[int, ...], score: Callable[[int], float], prompts: int, samples: int
) -> pd.DataFrame:
    """Rows of evaluations.parquet; a share `score(step)` is correct on chain6, half of that on chain8."""
    rows = []
    for benchmark, factor in (("chain6", 1.0), ("chain8", 0.5)):
        for step in steps:
            right = round(factor * min(score(step), 1.0) * prompts * samples)
            for index in range(prompts * samples):
                correct = index < right
                rows.append(
                    (
                        benchmark,
                        step,
                        f"p{index // samples}",
                        index % samples,
                        correct,
                        float(correct),
                        1.0 if correct else -1.0,
                        "correct" if correct else "wrong",
                        40,
                        False,
                    )
                )
    columns = "benchmark step prompt_id sample correct score reward reason length truncated".split()
    return pd.DataFrame(rows, columns=columns)


def sweep_folder(folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """The three arms of Figure 2 over seeds, plus one failed run; returns the folder."""
    for method in ("clip_higher", "cispo", "gppo"):
        for seed in seeds:
            run_folder(folder, method, seed)
    trace = "Traceback (most recent call last):\n  File ...\nFloatingPointError: loss is NaN at step 7"
    run_folder(folder, "none", 0, status="failed", error=trace, steps=6, evaluated=(0, 4))
    return folder


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """`run_folder`, handed out as a fixture because test files must not import a conftest by name."""
    return run_folder


@pytest.fixture(scope="session")
def write_sweep() -> Callable[..., Path]:
    """`sweep_folder`, likewise."""
    return sweep_folder


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """A function that opens an address in a headless browser: its DOM on stdout, its console on stderr."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser found (looked for {', '.join(BROWSERS)}): the page was not rendered")
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    return lambda url: subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture
def probed(
    tmp_path: Path, rendered: Callable[[str], subprocess.CompletedProcess[str]]
) -> Callable[[str, str], Any]:
    """A function that opens a page beside a script, and returns what that left as JSON; the console is quiet."""

    def see(page: str, probe: str) -> Any:
        path = tmp_path / "probe.html"
        path.write_text(probe.format(page=html.escape(page, quote=True)), encoding="utf-8")
        done = rendered(path.as_uri())
        assert not re.search(r"CONSOLE.*(error|Uncaught)", done.stderr, re.IGNORECASE)
        found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found.group(1)))

    return see


@pytest.fixture(scope="session")
def full_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """index.html of a report with three arms, three seeds, and failed, unfinished and other runs."""
    from analysis.report.report import write_report
    from analysis.runs.frames import load_runs

    folder = sweep_folder(tmp_path_factory.mktemp("full") / "runs")
    run_folder(
        folder, "gppo", 0, settings={"rl": {"steps": STEPS, "learning_rate": 0.0001}}, run_id="othersettings"
    )
    run_folder(folder, "gppo", 0, run_id="gppo-0-again", started="2026-01-02T10:00:00")
    run_folder(folder, "cispo", 7, status="running", steps=5, evaluated=(0, 4))
    return write_report(load_runs(folder), folder.parent / "report")
