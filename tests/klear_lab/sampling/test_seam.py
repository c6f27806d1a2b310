"""The seam between samplers and their users: a sampler of twenty lines serves a whole run, evaluation included."""

import random

import torch

from klear_lab.sampling import samplers
from klear_lab.sampling.types import Response


class Parrot:
    """Draws random tokens of the same probability, whatever the weights are, and notes how it is called."""

    def __init__(self):
        self.versions, self.calls, self.ended = [], [], False

    def load(self, weights, version):
        assert sum(1 for _ in weights()) > 3
        self.versions.append(version)

    def sample(self, requests, sampling):
        self.calls.append((len(requests), sampling.max_tokens))
        return [[self.draw(seed, sampling.max_tokens) for seed in request.seeds] for request in requests]

    def draw(self, seed, most):
        tokens = [random.Random(seed + i).randrange(5, 15) for i in range(most)]
        return Response(tokens, True, torch.full((most,), -2.5))

    def sleep(self):
        self.calls.append("sleep")

    def close(self):
        self.ended = True


def test_a_sampler_of_twenty_lines_runs_the_whole_pipeline(run, monkeypatch):
    parrot = Parrot()
    monkeypatch.setitem(samplers.SAMPLERS, "transformers", lambda policy, settings: parrot)
    folder = run("rl.steps=2", "rl.drop_zero_advantage=false", "eval.every=1", "data_source.benchmark_steps=[6]")
    assert folder.record["status"] == "finished"
    assert parrot.versions == [0, 0, 1, 1, 2]  # evaluation and rollout by turns
    assert [call for call in parrot.calls if call == "sleep"] == ["sleep"] * 2
    assert parrot.ended
    rl = [line for line in folder.metrics() if "policy/sampler_kl" in line]
    assert len(rl) == 2 and all(line["policy/sampler_kl"] > 0.1 for line in rl)


def test_a_sampler_that_tells_no_probabilities_leaves_the_mismatch_empty(run, monkeypatch):
    class Silent(Parrot):
        def draw(self, seed, most):
            return Response(super().draw(seed, most).token_ids, True)

    monkeypatch.setitem(samplers.SAMPLERS, "transformers", lambda policy, settings: Silent())
    folder = run("rl.steps=1", "rl.drop_zero_advantage=false")
    (line,) = [line for line in folder.metrics() if "policy/kl_old" in line]
    assert line["policy/sampler_kl"] is None and line["policy/sampler_ratio_max"] is None


def test_the_samplers_own_log_probs_are_the_learners(run):
    folder = run("rl.steps=2", "rl.drop_zero_advantage=false")
    for line in folder.metrics():
        if "policy/sampler_kl" in line:
            assert abs(line["policy/sampler_kl"]) < 1e-9
            assert abs(line["policy/sampler_ratio_max"] - 1) < 1e-4
