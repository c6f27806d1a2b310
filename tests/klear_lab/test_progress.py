"""The time left: steps and evaluations are counted apart, and a resumed run knows its earlier evaluations."""

import pytest

from klear_lab import progress
from klear_lab.progress import Display, evaluations_to_come


@pytest.mark.parametrize("total", [1, 7, 8])
@pytest.mark.parametrize("every", [1, 3, 8, 20])
def test_evaluations_to_come_are_those_that_the_loop_makes(total, every):
    for step in range(total + 1):
        due = [later for later in range(step + 1, total + 1) if later % every == 0 or later == total]
        assert evaluations_to_come(step, total, every) == len(due)
    assert evaluations_to_come(0, total, None) == 0


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_evaluation_before_the_first_step_is_not_taken_for_a_part_of_it(clock):
    display = Display("run", "off")
    with display.stage("RL", 10, 0, evaluate_every=5):
        clock[0] += 60
        display.evaluation_seconds.append(60.0)
        clock[0] += 4
        assert display.time_left(2, 10).total_seconds() == 8 * 2 + 2 * 60


def test_a_resumed_stage_counts_its_own_steps_and_remembers_earlier_evaluations(clock):
    display = Display("run", "off")
    display.evaluation_seconds += [50.0, 70.0]
    clock[0] += 500
    with display.stage("RL", 20, 10, evaluate_every=10):
        clock[0] += 6
        assert display.time_left(12, 20).total_seconds() == 8 * 3 + 60


def test_a_stage_without_evaluations_is_timed_by_its_steps(clock):
    display = Display("run", "off")
    with display.stage("SFT", 8, 0):
        clock[0] += 4
        assert display.time_left(2, 8).total_seconds() == 12
        assert display.time_left(8, 8).total_seconds() == 0


def test_lines_and_bars_show_the_same_time_left(clock, caplog):
    caplog.set_level("INFO")
    for mode in ("lines", "live"):
        display = Display("gppo seed 0", mode)
        with display.stage("RL", 10, 0, evaluate_every=5):
            clock[0] += 20
            display.show("RL", 1, 10, {"policy/entropy": 0.5})
            if mode == "live":
                assert display.bar.tasks[0].fields["left"] == "left 0:03:00"
    assert "[gppo seed 0] RL 1/10  entropy 0.500  left 0:03:00" in caplog.text
