"""Parallel coordinates: only of sweeps over more than two keys, a line an arm from its values to its mean score."""

import itertools

import numpy as np
import pytest

from analysis.sweeps.effects import swept_keys
from analysis.sweeps.figures import figures_of
from analysis.sweeps.kept import KeptSweep
from analysis.sweeps.parallel import SCORE, arm_scores, is_drawn, parallel_coordinates


def sweep(keys, score):
    """Runs of two seeds at each combination of `keys`; score: arm and seed -> final score, None: not evaluated."""
    runs = []
    for values in itertools.product(*keys.values()):
        arm = dict(zip(keys, values))
        for seed in (0, 1):
            found = score(arm, seed)
            scores = {} if found is None else {"chain6": {"0": 0.0, "8": found}}
            runs.append({"run_id": f"{values}{seed}", "arm": arm, "seed": seed, "scores": scores, "curves": {}})
    return KeptSweep({"sweep": "toy"}, runs)


KEYS = {"clip_method": ["gppo", "cispo"], "rl.learning_rate": [1e-4, 2e-4, 4e-4], "rl.alpha": [0.0, None]}


@pytest.fixture
def toy():
    """Only the learning rate matters, 0.1, 0.2 and 0.4; seeds differ by 0.02; one arm was never evaluated."""

    def score(arm, seed):
        lacks = arm == {"clip_method": "gppo", "rl.learning_rate": 4e-4, "rl.alpha": None}
        return None if lacks else 1000 * arm["rl.learning_rate"] + 0.02 * seed

    return sweep(KEYS, score)


def test_an_arms_score_is_the_mean_of_its_seeds_and_arms_without_one_have_no_line(toy):
    frame = arm_scores(toy)
    assert len(frame) == 11
    assert frame[SCORE].round(6).tolist() == [0.11] * 4 + [0.21] * 4 + [0.41] * 3
    assert set(frame.loc[frame[SCORE] > 0.4, "rl.learning_rate"]) == {"0.0004"}
    assert set(frame["rl.alpha"]) == {"0.0", "null"}


def test_lines_run_from_their_values_to_their_score(toy):
    ax = parallel_coordinates(toy).axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 11
    ends = np.array([line.get_ydata()[-1] for line in lines])
    assert ends == pytest.approx([0.0] * 4 + [1 / 3] * 4 + [1.0] * 3, abs=1e-6)
    places = {line.get_xdata()[40]: line.get_ydata()[40] for line in lines}
    assert list(places) == [1.0]
    at_rate = np.array([line.get_ydata()[40] for line in lines])  # the second axis: three rates, fanned out
    assert np.abs(at_rate - np.array([0.0] * 4 + [0.5] * 4 + [1.0] * 3)).max() < 0.1
    words = {text.get_text() for text in ax.texts}
    assert {"clip method", "learning rate", "alpha", SCORE, "GPPO", "0.0004", "0.11", "0.41"} <= words


@pytest.mark.parametrize("keys", [{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2], "b": [1, 2], "c": [3]}])
def test_two_swept_keys_are_no_parallel_coordinates(keys):
    two = sweep(keys, lambda arm, seed: 0.5)
    assert swept_keys(two) == ["a", "b"] and not is_drawn(two)


def test_a_sweep_without_scores_has_none_and_equal_scores_are_drawn():
    assert not is_drawn(sweep(KEYS, lambda arm, seed: None))
    equal = sweep(KEYS, lambda arm, seed: 0.5)
    assert "toy_parallel" in figures_of(equal)
    assert len(parallel_coordinates(equal, narrow=True).axes[0].lines) > 12
