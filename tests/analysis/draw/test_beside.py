"""Work beside this process: its results and errors come back whole, and one core does it all by itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.draw.beside import beside
from analysis.runs.damage import DamagedRunsError


def process_and_file(path: Path) -> int:
    path.write_text("drawn")
    return os.getpid()


def damaged(run: str) -> None:
    raise DamagedRunsError({run: f"{run}/samples.jsonl: not JSON lines"})


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="forks on Linux only")
@pytest.mark.parametrize(("cores", "elsewhere"), [({0, 1}, True), ({0}, False)])
def test_work_is_done_elsewhere_where_there_is_another_core(cores, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    with beside() as start:
        results = [start(process_and_file, tmp_path / name) for name in "ab"]
        assert [one() != os.getpid() for one in results] == [elsewhere] * 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("ab", "drawn")


def test_an_error_is_raised_where_the_result_is_asked_for_and_keeps_what_it_found():
    with beside() as start:
        result = start(damaged, "a1b2")
        with pytest.raises(DamagedRunsError, match="a1b2/samples.jsonl") as caught:
            result()
    assert caught.value.found == {"a1b2": "a1b2/samples.jsonl: not JSON lines"}


def test_what_was_not_begun_is_dropped_when_this_process_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), beside() as start:
        for number in range(2000):
            start(process_and_file, tmp_path / str(number))
        raise KeyboardInterrupt
    assert len([*tmp_path.iterdir()]) < 2000


PARENT = """
import os, time
from analysis.draw.beside import beside
with beside() as start:
    start(os.write, 1, b"begun\\n")()
    start(time.sleep, 600)()
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="forks on Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_none_behind(number):
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    process.communicate(timeout=60)  # raises while children, which hold the pipe open, live
    assert process.returncode == -number
