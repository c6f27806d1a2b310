"""Draws responses in all processes of a launch; the leader's evaluation and rollouts see one sampler."""

from collections.abc import Sequence

from klear_lab.engines.trl.processes import gather, in_order, own_share, tell
from klear_lab.sampling.types import Request, Response, Sampler, Sampling, Weights


class SharedSampler:
    """Shares out requests among the processes, each of which draws with a sampler and weights of its own.

    A response depends on its prompt and seed alone, so on the number of processes only by rounding.
    """

    def __init__(self, own: Sampler) -> None:
        """Takes the leader's own sampler."""
        self.own = own

    def load(self, weights: Weights, version: int) -> None:
        """Gives the leader's sampler its weights; a follower's are its learner's."""
        self.own.load(weights, version)

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Returns a list of responses for each request, in the order of requests and seeds."""
        tell("sample", list(requests), sampling)
        return in_order(sample_share(self.own, requests, sampling))

    def sleep(self) -> None:
        """Gives back the leader's memory; followers did when they had sampled."""
        self.own.sleep()

    def close(self) -> None:
        """Ends what the leader's sampler has started."""
        self.own.close()


def sample_share(own: Sampler, requests: Sequence[Request], sampling: Sampling) -> list[list[list[Response]]]:
    """Draws this process's share; returns those of all processes to the leader, nothing to a follower."""
    share = own_share(requests)
    return gather(own.sample(share, sampling) if share else [])
