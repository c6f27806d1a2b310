"""Drawings that never change are drawn once for all reports, and anew where the code, or what was kept, has changed."""

import subprocess
import sys

import pytest

from analysis.draw import drawn_once as module
from analysis.draw.drawn_once import drawn_once


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What was drawn, with a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module.cache_folder.cache_clear()
    yield []
    module.cache_folder.cache_clear()


def drawing(calls):
    """A new function of the same name, as another process would have it."""

    def draw(name):
        calls.append(name)
        return {name: b"\x89PNG"}

    return drawn_once(draw)


def test_another_process_finds_what_was_drawn(calls):
    assert drawing(calls)("a") == drawing(calls)("a") == {"a": b"\x89PNG"}
    drawing(calls)("b")
    assert calls == ["a", "b"]


def test_a_change_of_the_code_draws_anew(calls, monkeypatch):
    drawing(calls)("a")
    monkeypatch.setattr(module, "state_of_the_code", lambda: "another")
    drawing(calls)("a")
    assert calls == ["a", "a"]


def test_a_damaged_drawing_is_drawn_anew(calls, tmp_path):
    drawing(calls)("a")
    (kept,) = tmp_path.rglob("output.pkl")
    kept.write_bytes(b"cut")
    assert drawing(calls)("a") == {"a": b"\x89PNG"}
    assert calls == ["a", "a"]


def test_without_a_folder_to_write_to_everything_is_drawn(calls, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    module.cache_folder.cache_clear()
    assert drawing(calls)("a") == drawing(calls)("a")
    assert calls == ["a", "a"]


def test_the_state_of_the_code_has_sweeps_and_configs_in_it():
    code = "from analysis.draw import drawn_once as d; d.ENDINGS = {!r}; print(d.state_of_the_code())"
    states = [
        subprocess.check_output([sys.executable, "-c", code.format(e)]) for e in ((".py",), (".py", ".yaml"))
    ]
    assert states[0] != states[1]
