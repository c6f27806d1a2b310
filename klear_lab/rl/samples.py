"""Sample responses: a few of a step's rollout as text, for a person to read and to compare between arms.

They are the first responses to the step's first prompts. Arms of a seed have the same prompts at a step, so the
same prompts show in all of them; and no random choice is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from klear_lab.config import Config
from klear_lab.policy.codec import Codec
from klear_lab.rl.phases import total_steps
from klear_lab.rows import Row
from klear_lab.sampling.types import Response
from klear_lab.verify.rewards import Score


@dataclass(frozen=True)
class Sample:
    """Holds a response of a rollout with its prompt's row and its score."""

    row: Row
    response: Response
    score: Score


def choose_samples(
    prompts: Sequence[Row], sampled: Sequence[Sequence[Response]], scores: Sequence[Sequence[Score]], count: int
) -> list[Sample]:
    """Returns `count` responses, or all where there are fewer: the first to each prompt, then the second ones."""
    rounds = zip(zip(*sampled, strict=True), zip(*scores, strict=True), strict=True)
    found = (Sample(*one) for responses, own in rounds for one in zip(prompts, responses, own, strict=True))
    return list(islice(found, count))


def is_due(config: Config, step: int) -> bool:
    """Tells whether a step keeps its samples: every `samples.every` steps, and at the last."""
    every = config.eval.every if config.samples.every is None else config.samples.every
    return step % every == 0 or step == total_steps(config.rl)


def sample_lines(codec: Codec, step: int, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Returns the lines of samples.jsonl: step, prompt, response, reward, correct, reason, length and truncated.

    The prompt is as the chat template writes it, the response without stop tokens; length is in tokens.
    """
    return [
        {
            "step": step,
            "prompt": codec.prompt_text(sample.row["prompt"]),
            "response": codec.decode_response(sample.row["prompt"], sample.response.token_ids),
            "reward": sample.score.reward,
            "correct": sample.score.correct,
            "reason": sample.score.reason,
            "length": len(sample.response.token_ids),
            "truncated": sample.response.truncated,
        }
        for sample in samples
    ]
