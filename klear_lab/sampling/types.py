"""What goes into a sampler beside prompts, and what comes out: token ids, whatever model drew them."""

from dataclasses import dataclass

from klear_lab.config import Config, RLConfig


@dataclass(frozen=True)
class Response:
    """One response. `truncated`: it hit the token limit before a stop token."""

    token_ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `temperature` 0 is greedy; `batch_sequences` costs memory, never changes a draw."""

    samples: int  # responses to each prompt
    max_tokens: int
    temperature: float
    top_p: float
    batch_sequences: int  # sequences sampled at once

    @classmethod
    def for_rollout(cls, rl: RLConfig) -> "Sampling":
        """A group of responses to each prompt, from the whole distribution (top-p 1)."""
        return cls(
            rl.responses_per_prompt, rl.max_response_tokens, rl.temperature, 1.0, rl.rollout_batch_sequences
        )

    @classmethod
    def for_evaluation(cls, config: Config) -> "Sampling":
        """As in the paper's evaluation (section 4: temperature 0.6, top-p 0.95), within `eval.response_budget`."""
        settings = config.eval
        max_tokens = round(settings.response_budget * config.rl.max_response_tokens)
        return cls(settings.samples, max_tokens, settings.temperature, settings.top_p, settings.batch_sequences)
