"""The seam between samplers and all that uses them: requests and settings in, responses out, token ids only.

Shapes: T response tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from klear_lab.config import Config, RLConfig

# Gives a model's weights by name, one at a time, so that no second copy of all of them need exist.
Weights = Callable[[], Iterable[tuple[str, Tensor]]]


@dataclass(frozen=True)
class Request:
    """Asks for responses to one prompt, one for each seed. A response depends on its prompt and its seed alone."""

    prompt_ids: list[int]
    seeds: list[int]  # from 0 to 2**63 - 1


@dataclass(frozen=True)
class Response:
    """Holds a sampled response; `truncated` if it reached the token limit before a stop token.

    `log_prob_T` are the sampler's own log-probabilities of the tokens in nats, float32 on the CPU, with the
    temperature and before top-p; None from a sampler that has none.
    """

    token_ids: list[int]
    truncated: bool
    log_prob_T: Tensor | None = None


@dataclass(frozen=True)
class Sampling:
    """Says how to draw responses. `temperature` 0 is greedy; `batch_sequences` costs memory, changes no draw."""

    samples: int  # responses to each prompt
    max_tokens: int
    temperature: float
    top_p: float
    batch_sequences: int  # sequences sampled at once

    @classmethod
    def for_rollout(cls, rl: RLConfig) -> "Sampling":
        """Returns RL's settings: a group of responses to each prompt, from the whole distribution (top-p 1)."""
        return cls(
            rl.responses_per_prompt, rl.max_response_tokens, rl.temperature, 1.0, rl.rollout_batch_sequences
        )

    @classmethod
    def for_evaluation(cls, config: Config) -> "Sampling":
        """Returns evaluation's settings; the paper's are temperature 0.6 and top-p 0.95 (Table 1).

        A response may have `eval.response_budget` times as many tokens as in RL.
        """
        settings = config.eval
        max_tokens = max(1, round(settings.response_budget * config.rl.max_response_tokens))
        return cls(settings.samples, max_tokens, settings.temperature, settings.top_p, settings.batch_sequences)


class Sampler(Protocol):
    """Draws responses from the weights that it was last given. Knows its model's stop tokens from its start."""

    def load(self, weights: Weights, version: int) -> None:
        """Takes over weights; those of a `version` that it has already cost nothing."""

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Returns a list of responses for each request, in the order of requests and seeds."""

    def sleep(self) -> None:
        """Gives back what memory it can until the next `load` or `sample`, so that training may have it."""

    def close(self) -> None:
        """Ends what the sampler has started; it draws no more."""
