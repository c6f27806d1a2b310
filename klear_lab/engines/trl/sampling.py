"""Draws responses in all processes of a launch, or from a server; evaluation and rollouts see one sampler."""

from collections.abc import Sequence
from typing import Any

import torch

from klear_lab.engines.trl.processes import gather, in_order, own_share, tell
from klear_lab.policy.codec import Codec
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


class ServerSampler:
    """Draws with vLLM in processes of its own, which `trl vllm-serve` starts and TRL brings the learner's weights.

    Seeds have no effect: a resumed run draws other responses. No machine of the tests' has run it.
    """

    def __init__(self, vllm: Any, codec: Codec) -> None:
        """`vllm` is the trainer's `vllm_generation`, whose server is up."""
        self.vllm, self.codec = vllm, codec
        self.version: int | None = None

    def load(self, weights: Weights, version: int) -> None:
        """Brings the server the weights of `version`, unless it has them; all processes give their part."""
        if version != self.version:
            tell("sync")
            self.vllm.sync_weights()
            self.version = version

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Returns a list of responses for each request, in the order of requests."""
        drawn = self.vllm.vllm_client.generate(
            prompts=[request.prompt_ids for request in requests],
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            logprobs=0,
            generation_kwargs={"stop_token_ids": self.codec.stop_token_ids},
        )
        pairs = zip(drawn["completion_ids"], drawn["logprobs"], strict=True)
        responses = [self.response(ids, log_probs) for ids, log_probs in pairs]
        return [responses[i : i + sampling.samples] for i in range(0, len(responses), sampling.samples)]

    def response(self, ids: list[int], log_probs: list[list[float | None]]) -> Response:
        """Returns a response; its log-probabilities have no number where the server has none."""
        log_prob_T = torch.tensor([torch.nan if own[0] is None else own[0] for own in log_probs])
        return Response(ids, ids[-1] not in self.codec.stop_token_ids, log_prob_T)

    def sleep(self) -> None:
        """Does nothing: the server has cards of its own."""

    def close(self) -> None:
        """Does nothing: the server goes on."""
