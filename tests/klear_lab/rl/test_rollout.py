"""A step's rollout: its prompts, groups and their advantages, what leaves, and how often it samples."""

import math

import pytest

from klear_lab.config import RLConfig
from klear_lab.data.prepare import prepare_data
from klear_lab.rl import rollout
from klear_lab.rl.loss import ScoredResponse
from klear_lab.rl.phases import Phase
from klear_lab.rl.rollout import choose_groups, choose_prompts, collect, make_groups, punish_overlong
from klear_lab.sampling.types import Response
from klear_lab.verify.verifiers import Verifiers
from support.training import scored


@pytest.fixture
def rows(config):
    return prepare_data(config("data.filter_rl=false")).rl_rows


def test_every_row_comes_once_before_any_comes_again(config, rows):
    phase = Phase(0, None, config().rl)
    ids = [row["id"] for step in range(1, 9) for row in choose_prompts(phase, rows, seed=3, step=step)]
    assert sorted(ids) == sorted(row["id"] for row in rows)
    assert ids != [row["id"] for row in rows]


def test_arms_of_one_seed_share_their_prompts_and_other_seeds_do_not(config, rows):
    phase = Phase(0, None, config().rl)

    def chosen(seed, again=0):
        return [row["id"] for row in choose_prompts(phase, rows, seed, 2, again)]

    assert chosen(0) == chosen(0) != chosen(1)
    assert chosen(0, again=1) == chosen(0, again=1) != chosen(0, again=2)
    assert len(set(chosen(0, again=1))) == len(chosen(0))


def rl_of(config, *overrides):
    rl = config(*overrides).rl
    assert isinstance(rl, RLConfig)
    return rl


def one_group(rewards, truncated, rl):
    sampled = [[Response([5], cut) for cut in truncated]]
    return make_groups([[7, 8]], sampled, [[scored(r) for r in rewards]], rl)


def test_groups_carry_advantages_and_correctness(config):
    sampled = [[Response([5, 1], False), Response([6, 6], True)]]
    ((right, wrong),) = make_groups([[7, 8]], sampled, [[scored(1.0), scored(-1.0)]], rl_of(config))
    assert isinstance(right, ScoredResponse)
    assert (right.advantage, right.correct, right.truncated) == (1.0, True, False)
    assert (wrong.advantage, wrong.correct, wrong.truncated) == (-1.0, False, True)


# Two right, two wrong, four cut off and so wrong: what the paper's formula and what the authors' code give them.
RIGHT_WRONG_CUT = [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0], [False] * 4 + [True] * 4


def test_masked_overlong_responses_count_in_mean_and_std_or_leave_before_as_in_the_authors_code(config):
    masked = rl_of(config, "rl.mask_overlong=true")
    (group,) = choose_groups(one_group(*RIGHT_WRONG_CUT, masked), masked)
    assert [r.advantage for r in group] == pytest.approx([3**0.5, 3**0.5, -(3**-0.5), -(3**-0.5)])
    authors = rl_of(config, "rl.mask_overlong=true", "rl.overlong_counts=false", "rl.group_std=sample")
    (group,) = choose_groups(one_group(*RIGHT_WRONG_CUT, authors), authors)
    assert [r.advantage for r in group] == pytest.approx([math.sqrt(0.75)] * 2 + [-math.sqrt(0.75)] * 2, rel=1e-5)


@pytest.mark.parametrize("overlong_counts", [True, False])
def test_responses_that_dont_count_have_no_advantage_and_number_on(config, overlong_counts):
    rl = rl_of(config, "rl.mask_overlong=true", f"rl.overlong_counts={overlong_counts}")
    (group,) = one_group(*RIGHT_WRONG_CUT, rl)
    assert [r.number for r in group] == list(range(8))
    assert all((r.advantage == 0) == (r.truncated and not overlong_counts) for r in group)


def test_a_group_whose_responses_are_all_cut_off_has_no_advantage_where_none_counts(config):
    rl = rl_of(config, "rl.mask_overlong=true", "rl.overlong_counts=false")
    (group,) = one_group([1.0, -1.0], [True, True], rl)
    assert [r.advantage for r in group] == [0.0, 0.0]
    assert choose_groups([group], rl) == []


@pytest.mark.parametrize(
    ("rewards", "correct", "by_reward", "by_correct"),
    [
        ([0.5, 0.2], [False, False], True, False),  # a soft reward without a fully right answer
        ([1.0, 1.0], [True, True], False, False),
        ([1.0, -1.0], [True, False], True, True),
        ([-0.5, -1.0], [False, False], True, False),  # one has the wrong form, under the authors' reward
        ([-1.0, -1.0], [False, False], False, False),
    ],
)
def test_groups_are_dropped_by_equal_rewards_or_by_equal_correctness(
    config, rewards, correct, by_reward, by_correct
):
    for drop_equal, stays in (("reward", by_reward), ("correct", by_correct)):
        rl = rl_of(config, "rl.drop_zero_advantage=true", f"rl.drop_equal={drop_equal}")
        scores = [[scored(r, correct=right) for r, right in zip(rewards, correct, strict=True)]]
        groups = make_groups([[7]], [[Response([5], False)] * 2], scores, rl)
        assert bool(choose_groups(groups, rl)) == stays


def test_responses_near_the_limit_lose_reward_in_proportion(config):
    rl = rl_of(config, "rl.max_response_tokens=10", "rl.overlong_buffer=4", "rl.overlong_penalty=2.0")
    sampled = [[Response([5] * length, length == 10) for length in (1, 6, 7, 9, 10)]]
    (found,) = punish_overlong(sampled, [[scored(1.0)] * 5], rl)
    assert [score.reward for score in found] == [1.0, 1.0, 0.5, -0.5, -1.0]
    assert all(score.correct for score in found)


class Counted:
    """A sampler whose first responses to any prompt are right at every third prompt that it meets."""

    def __init__(self):
        self.calls = []

    def load(self, weights, version): ...

    def sleep(self):
        self.calls.append("sleep")

    def sample(self, requests, how):
        self.calls.append([request.seeds for request in requests])
        return [[Response([5], False) for _ in request.seeds] for request in requests]


@pytest.fixture
def collected(config, rows, policy, monkeypatch):
    def run(*overrides, lucky=3):
        c = config("rl.prompts_per_step=3", "rl.mini_batch_prompts=1", "rl.drop_zero_advantage=true", *overrides)
        met = []

        def score(codec, prompts, sampled, verifiers, draw):
            met.append(draw)
            return [[scored(1.0 if g == 0 and p % lucky == 0 else -1.0) for g, _ in enumerate(group)]
                    for p, group in enumerate(sampled)]  # fmt: skip

        sampler = Counted()
        with monkeypatch.context() as patch, Verifiers(rows, c.reward, workers=1, sandbox="auto") as verifiers:
            patch.setattr(rollout, "score_rollout", score)
            found = collect(policy.codec, sampler, Phase(0, None, c.rl), rows, c, verifiers, 1)
        return found, sampler.calls, met

    return run


def test_a_step_samples_once_and_trains_on_what_is_left(collected):
    found, calls, draws = collected()
    assert len(found.prompts) == 3 and len(found.chosen) == 1
    assert len(calls) == 2 and calls[-1] == "sleep" and draws == ["0-tests-1"]


def test_a_step_samples_until_enough_groups_are_left(collected):
    found, calls, draws = collected("rl.train_prompts=3", "rl.max_rollouts=9")
    assert len(found.prompts) == len(found.groups) == len(found.sampled) == len(found.scores) == 9
    assert len(found.chosen) == 3 and calls[-1] == "sleep"
    assert draws == ["0-tests-1", "0-tests-1-1", "0-tests-1-2"]
    seeds = [seed for call in calls[:-1] for own in call for seed in own]
    assert len(set(seeds)) == len(seeds)
    numbers = [r.number for group in found.groups for r in group]
    assert numbers == list(range(len(numbers)))


def test_a_step_gives_up_after_max_rollouts_and_trains_on_fewer(collected):
    found, *_ = collected("rl.train_prompts=3", "rl.max_rollouts=2")
    assert len(found.prompts) == 6 and len(found.chosen) == 2


def test_a_step_may_sample_more_prompts_than_it_trains_on(collected):
    found, *_ = collected("rl.train_prompts=1", lucky=1)
    assert len(found.groups) == 3
    assert found.chosen == found.groups[:1]


def test_the_first_rollout_is_the_same_however_often_a_step_may_sample(collected):
    once, _, _ = collected()
    often, _, _ = collected("rl.train_prompts=3", "rl.max_rollouts=9")
    assert often.prompts[:3] == once.prompts
