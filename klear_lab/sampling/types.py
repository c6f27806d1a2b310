"""The types of sampling: the settings that a sampler takes beside prompts, and the responses that it returns."""

from dataclasses import dataclass

from klear_lab.config import Config, RLConfig


@dataclass(frozen=True)
class Response:
    """Holds a sampled response; `truncated` if it reached the token limit before a stop token."""

    token_ids: list[int]
    truncated: bool


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
        """Returns evaluation's settings; the paper's are temperature 0.6 and top-p 0.95 (section 4).

        A response may have `eval.response_budget` times as many tokens as in RL.
        """
        settings = config.eval
        max_tokens = round(settings.response_budget * config.rl.max_response_tokens)
        return cls(settings.samples, max_tokens, settings.temperature, settings.top_p, settings.batch_sequences)
