"""Shared work: each part is done once, by whichever process, also when one is killed in the middle of a part."""

import subprocess
import sys
import time

import pytest

from klear_lab.storage import shared_work
from klear_lab.storage.shared_work import take_parts

WORKER = """
import sys, time
from pathlib import Path
from klear_lab.storage import shared_work
shared_work.SECONDS_BETWEEN_LOOKS = 0.05
folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
for number in shared_work.take_parts([folder / str(i) for i in range(12)]):
    with (folder / "log").open("a") as log:
        log.write(f"{name} {number}\\n")
    time.sleep(seconds)
    (folder / str(number)).write_text(name)
"""


@pytest.fixture
def start(tmp_path):
    def worker(name, seconds):
        return subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), name, str(seconds)])

    return worker


def test_parts_are_done_once_by_whichever_process_is_free(start, tmp_path):
    workers = [start(name, 0.05) for name in "abc"]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    begun = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(begun) == list(range(12))


def test_the_part_of_a_killed_process_is_done_by_another(start, tmp_path):
    slow = start("slow", 600)
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    quick = start("quick", 0)
    while len([*tmp_path.glob("[0-9]*[0-9]"), *tmp_path.glob("[0-9]")]) < 11:
        assert quick.poll() is None
        time.sleep(0.01)
    assert quick.poll() is None  # it waits for the last part
    slow.kill()
    assert quick.wait(60) == 0
    assert {(tmp_path / str(i)).read_text() for i in range(12)} == {"quick"}


def test_a_process_that_comes_late_has_nothing_to_do(tmp_path):
    files = [tmp_path / str(i) for i in range(3)]
    for number in take_parts(files):
        files[number].touch()
    assert [*take_parts(files)] == []


def test_an_error_frees_the_part_for_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_work, "SECONDS_BETWEEN_LOOKS", 0.01)
    files = [tmp_path / "0"]
    with pytest.raises(RuntimeError, match="broke"):
        for _ in take_parts(files):
            raise RuntimeError("broke")
    assert next(take_parts(files)) == 0
