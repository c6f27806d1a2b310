"""Effects: one number a seed, paired within everything else that a sweep varies, against hand-made sweeps."""

import pytest

from analysis.sweeps.effects import (
    between,
    calm,
    difference_of,
    final_score,
    in_every_arm,
    late,
    learning_score,
    on_all_arms,
    rise,
    roughness,
    whole,
)
from analysis.sweeps.kept import KeptSweep


def run(seed, arm, score, curves=None):
    scores = {"a": {"0": 0.0, "5": score / 2, "10": score}, "b": {"0": 0.0, "5": 0.0, "10": score}}
    return {"run_id": f"{arm}-{seed}", "arm": arm, "seed": seed, "scores": scores, "curves": curves or {}}


def grid(score):
    """Two keys, two seeds; score(x, y, seed)."""
    runs = [run(s, {"x": x, "y": y}, score(x, y, s)) for x in (1, 2) for y in (True, None) for s in (0, 1)]
    return KeptSweep({"sweep": "toy"}, runs)


def test_a_difference_is_paired_within_seed_and_averaged_over_the_other_keys():
    # y and the seed shift both sides alike; the difference of x is 0.1, and 0.3 more where y is null, seed 1.
    kept = grid(lambda x, y, s: 0.1 * x + 0.2 * (y is None) + 0.05 * s + 0.3 * (x == 2 and y is None and s == 1))
    effect = between(kept, final_score, {"x": ["2"]}, {"x": ["1"]})
    assert effect.to_dict() == pytest.approx({0: 0.1, 1: 0.1 + 0.15})


def test_several_values_of_a_side_are_averaged():
    kept = KeptSweep({"sweep": "toy"}, [run(0, {"x": x}, x / 10) for x in (1, 2, 4, 6)])
    effect = between(kept, final_score, {"x": ["1", "2"]}, {"x": ["4", "6"]})
    assert effect.to_dict() == pytest.approx({0: 0.15 - 0.5})


@pytest.mark.parametrize("lost", range(8))
def test_a_seed_that_lacks_an_arm_is_left_out(lost):
    kept = grid(lambda x, y, s: 0.1 * x)
    runs = [r for i, r in enumerate(kept.runs) if i != lost]
    effect = between(KeptSweep({}, runs), final_score, {"x": ["2"]}, {"x": ["1"]})
    assert effect.to_dict() == pytest.approx({1 - kept.runs[lost]["seed"]: 0.1})


def test_values_are_named_as_they_are_typed_and_unknown_keys_match_nothing():
    kept = grid(lambda x, y, s: 0.5 if y else 0.2)
    assert between(kept, final_score, {"y": ["true"]}, {"y": ["null"]}).to_dict() == pytest.approx(
        {0: 0.3, 1: 0.3}
    )
    assert between(kept, final_score, {"z": ["true"]}, {"z": ["null"]}).empty


def test_measures_of_scores():
    one = run(0, {}, 0.8)
    assert final_score(one) == pytest.approx(0.8)
    assert learning_score(one) == pytest.approx((0.4 + 0.8 + 0.0 + 0.8) / 4)


def test_measures_of_curves():
    one = run(0, {}, 0.5, {"m": [1.0, 2.0, None, 4.0, 8.0, 8.0], "n": [0.5] * 6})
    assert whole("m")(one) == pytest.approx(23 / 5)
    assert late("m")(one) == 8.0  # the last quarter of five values is one
    assert late("short")({"curves": {"short": [2.0, 4.0]}}) == 4.0  # and that of two
    assert rise("m")(one) == 7.0
    assert roughness("m")(one) == pytest.approx((1 + 2 + 4 + 0) / 4)
    assert calm("m", 3.0)(one) == pytest.approx(3 - 8 / 4)
    assert difference_of(whole("m"), whole("n"))(one) == pytest.approx(23 / 5 - 0.5)
    for measure in (
        whole("x"),
        late("x"),
        rise("x"),
        roughness("x"),
        calm("x", 3),
        difference_of(whole("x"), whole("m")),
    ):
        assert measure(one) is None


def test_a_run_without_the_metric_takes_its_seed_out():
    runs = [run(s, {"x": x}, 0.5, {"m": [1.0 * x]} if s or x == 1 else {}) for x in (1, 2) for s in (0, 1)]
    kept = KeptSweep({}, runs)
    assert on_all_arms(kept, whole("m")).to_dict() == {1: 1.5}
    assert between(kept, whole("m"), {"x": ["2"]}, {"x": ["1"]}).to_dict() == {1: 1.0}


def test_an_effect_needs_every_arm_that_it_names():
    kept = KeptSweep({}, [run(s, {"x": x}, 0.5, {"m": [1.0 * x + s]}) for x in (1, 2, 3) for s in (0, 1)])
    assert between(kept, whole("m"), {"x": ["2", "3"]}, {"x": ["1"]}).to_dict() == {0: 1.5, 1: 1.5}
    assert between(kept, whole("m"), {"x": ["2", "4"]}, {"x": ["1"]}).empty
    assert between(kept, whole("m"), {"x": ["2"]}, {"x": ["0", "1"]}).empty
    assert on_all_arms(kept, whole("m"), {"x": ["1", "2"]}).to_dict() == {0: 1.5, 1: 2.5}
    assert on_all_arms(kept, whole("m"), {"x": ["1", "4"]}).empty
    assert in_every_arm(kept, whole("m"), {"x": ["3", "2"]}).to_dict() == {0: 2.0, 1: 3.0}
    assert in_every_arm(kept, whole("m"), {"x": ["3", "4"]}).empty


def test_what_holds_on_average_alone_does_not_hold_in_every_arm():
    kept = KeptSweep({}, [run(s, {"x": x}, 0.5, {"m": [9.0 if x == 1 else -1.0]}) for x in (1, 2) for s in (0, 1)])
    assert on_all_arms(kept, whole("m"), {"x": ["1", "2"]}).to_dict() == {0: 4.0, 1: 4.0}
    assert in_every_arm(kept, whole("m"), {"x": ["1", "2"]}).to_dict() == {0: -1.0, 1: -1.0}
