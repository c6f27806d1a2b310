"""The stage cache: made once, found later, safe with parallel and killed makers."""

import multiprocessing
import os
import signal
import time

import pytest
from filelock import FileLock

from klear_lab.storage.interruption import Interrupted, Stop
from klear_lab.storage.stage_cache import cached, held_lock


def make_file(folder):
    (folder / "result").write_text("made")


def make_slowly(folder):
    with (folder / "makers").open("a") as file:
        file.write("x")
    time.sleep(1.0)


def slow_maker(cache_dir, queue):
    queue.put(cached("sft", {"a": 1}, cache_dir, make_slowly, Stop()).from_cache)


def stuck_maker(cache_dir):
    def make(folder):
        (folder / "half").write_text("x")
        time.sleep(60)

    cached("sft", {"a": 1}, cache_dir, make, Stop())


def test_the_same_content_is_made_once(tmp_path):
    first = cached("sft", {"a": 1}, tmp_path, make_file, Stop())
    again = cached("sft", {"a": 1}, tmp_path, make_file, Stop())
    assert (first.from_cache, again.from_cache) == (False, True)
    assert (first.folder, first.key) == (again.folder, again.key)
    assert (again.folder / "result").read_text() == "made"


def test_other_content_or_another_stage_is_made_anew(tmp_path):
    keys = {
        cached(stage, content, tmp_path, make_file, Stop()).key
        for stage, content in [("sft", {"a": 1}), ("sft", {"a": 2}), ("data", {"a": 1}), ("sft", {"b": 1})]
    }
    assert len(keys) == 4


def test_a_folder_of_an_older_form_is_made_anew_and_stays_until_the_new_one_is_whole(tmp_path):
    old = cached("data", {}, tmp_path, make_file, Stop()).folder

    def make(folder):
        assert (old / "result").exists()
        (folder / "new").write_text("made")

    assert not cached("data", {}, tmp_path, make, Stop(), holds="new").from_cache
    assert [path.name for path in old.iterdir()] == ["new"]
    assert cached("data", {}, tmp_path, make, Stop(), holds="new").from_cache


def test_a_maker_that_fails_leaves_nothing_that_counts_as_made(tmp_path):
    def fail(folder):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("sft", {}, tmp_path, fail, Stop())
    assert not cached("sft", {}, tmp_path, make_file, Stop()).from_cache


def test_parallel_runs_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=slow_maker, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == [False, True, True]
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    assert (folder / "makers").read_text() == "x"


def test_a_killed_maker_frees_the_lock_and_is_made_again(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=stuck_maker, args=(tmp_path,))
    process.start()
    while not list(tmp_path.glob("*.partial/half")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not cached("sft", {"a": 1}, tmp_path, make_file, Stop()).from_cache


def test_a_run_that_waits_for_another_leaves_when_asked_to(tmp_path):
    stop = Stop(tmp_path / "stop")
    (tmp_path / "stop").touch()
    waiting = held_lock(tmp_path / "lock", "busy", stop)
    with FileLock(tmp_path / "lock"), pytest.raises(Interrupted, match="stopped while another process was busy"):
        waiting.__enter__()
