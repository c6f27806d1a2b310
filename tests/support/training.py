"""What tests of the RL step share: a state to train, and rewards that differ within each group."""

from klear_lab.policy.training_state import start_state
from klear_lab.verify import rewards
from klear_lab.verify.rewards import Score


def state_of(policy, c):
    rl = c.rl
    return start_state(
        policy, learning_rate=rl.learning_rate, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay
    )


def weights(policy):
    return [p.detach().clone() for p in policy.model.parameters()]


def alternate_rewards(monkeypatch):
    """An untrained policy is never right; give every second response of a group +1."""
    count = iter(range(10**6))

    def score(responses, *_):
        return [scored(1.0 if next(count) % 2 == 0 else -1.0) for _ in responses]

    monkeypatch.setattr(rewards, "score_responses", score)


def scored(reward, correct=None):
    right = reward > 0 if correct is None else correct
    return Score(float(right), right, True, reward, "correct" if right else "wrong")
