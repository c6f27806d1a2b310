"""SIGKILL at random moments: whatever it meets, the same command ends with what an undisturbed run has, bit for bit.

Runs are processes of a fork server that has everything imported, so that twenty of them cost seconds.
"""

import itertools
import random
import signal
import time

import pytest
import torch

from klear_lab.identity import run_id
from klear_lab.pipeline import run_pipeline
from klear_lab.storage.run_folder import RunFolder
from klear_lab.validation import parse
from support.runs import SMALL, same_result
from support.server import SERVER

SETTINGS = [*SMALL, "sft.steps=8", "rl.steps=6", "eval.every=2", "checkpoint.sft_every=3", "checkpoint.rl_every=2"]
KILLS = 20


def work(composed):
    """What the command does, in a process of its own."""
    torch.set_num_threads(1)
    run_pipeline(parse(composed), composed)


@pytest.fixture
def start():
    """Starts a run in a process of its own."""
    started = []

    def begin(composed):
        started.append(SERVER.Process(target=work, args=(composed,)))
        started[-1].start()
        return started[-1]

    yield begin
    for process in started:
        process.kill()  # one that hangs; otherwise it has ended


def stage_reached(folder):
    """Which stages an attempt had finished, or begun, when it was killed."""
    if not (folder.path / "run.json").exists():
        return "nothing"
    if any(line["stage"] == "rl" for line in folder.metrics()):
        return "rl"
    return "sft" if "data" in folder.record.get("stages", {}) else "data"


@pytest.fixture
def undisturbed(composed_config, tmp_path, start):
    """The run to compare with, and the seconds that it takes."""
    composed = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'undisturbed'}")
    start(composed).join()  # the server's own start, and files read for the first time
    again = composed_config(*SETTINGS, f"runs_dir={tmp_path / 'timed'}")
    started = time.monotonic()
    process = start(again)
    process.join()
    assert process.exitcode == 0
    return RunFolder(tmp_path / "undisturbed" / run_id(composed)), time.monotonic() - started


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(composed_config, tmp_path, start, undisturbed):
    reference, seconds = undisturbed
    moments, killed, met = random.Random(KILLS), 0, set()
    for number in itertools.count():
        if killed >= KILLS:
            break
        name = f"run-{number}"
        composed = composed_config(*SETTINGS, f"runs_dir={tmp_path / name}")
        folder = RunFolder(tmp_path / name / run_id(composed))
        delays = []
        for _ in range(3 if number % 5 == 0 else 1):
            # Each in its share of the seconds that a run takes, so that few kills meet all stages too.
            delays.append(seconds * (killed + moments.random()) / KILLS)
            started = time.monotonic()
            process = start(composed)
            process.join(delays[-1])
            if process.exitcode is None:
                process.kill()
                process.join()
            elif len(delays) == 1:  # a whole run; other tests leave more of the processors than when it was timed
                seconds = min(seconds, time.monotonic() - started)
            if process.exitcode == -signal.SIGKILL:  # it may have ended just before
                met.add(stage_reached(folder))
                killed += 1
        process = start(composed)
        process.join()
        assert process.exitcode == 0, delays
        assert folder.record["status"] == "finished", delays
        same_result(folder, reference)
    assert met >= {"sft", "rl"}
