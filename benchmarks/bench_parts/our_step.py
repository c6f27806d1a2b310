"""The RL step of ours that parts measure: training's own, but for verifiers, whose verdicts alternate."""

import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from peers import alternating

from klear_lab.config import Config
from klear_lab.policy import log_probs
from klear_lab.policy.micro_batches import length
from klear_lab.policy.model import Policy
from klear_lab.policy.training_state import start_state
from klear_lab.rl import trainer
from klear_lab.rl.phases import phase_of
from klear_lab.rl.rollout import choose_prompts
from klear_lab.rows import Row
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Response
from klear_lab.verify.registry import Verdict
from klear_lab.verify.verifiers import Verifiers

# What a response without form earns is no verifier's choice, so without this a group might be left out.
KEEP_ALL = "rl.drop_zero_advantage=false"


class AlternatingVerifiers(Verifiers):
    """Finds every second answer right, and looks at none."""

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Returns the verdicts."""
        return [Verdict(raw, "correct" if raw else "wrong") for raw in alternating(len(answers))]


class OurSteps:
    """Takes RL steps with a policy, one after the other, and says what each took."""

    def __init__(self, config: Config, policy: Policy, rows: list[Row]) -> None:
        """Starts an optimizer for the policy; `rows` have the prompts."""
        rl = config.rl
        self.config, self.policy, self.rows = config, policy, rows
        self.state = start_state(
            policy, learning_rate=rl.learning_rate, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay
        )
        self.sampler = TransformersSampler(policy)
        self.verifiers = AlternatingVerifiers([], config.reward, 1, "auto")

    def step(self) -> dict[str, float]:
        """Takes a step; returns its seconds, whole and by part, the tokens sampled, and what is computed.

        Of sampling that are the tokens that responses to a prompt don't have in common. Of training there are the
        tokens of its passes, each response's prompt included, and those that it computes.
        Updates include all that is neither sampling nor old log-probabilities: scoring, decoding, metrics.
        """
        sampled: list[float] = []
        recorded: list[float] = []
        groups: list[list[Response]] = []
        read: list[tuple[int, int]] = []

        def sample(*given: Any) -> Any:
            found = timed(sampled, TransformersSampler.sample, self.sampler, *given)
            groups.extend(found)
            return found

        def record(*given: Any, own: Callable[..., Any] = trainer.record_old_log_probs) -> Any:
            return timed(recorded, own, *given)

        def tree_of(model: Any, sequences: Any, own: Callable[..., Any] = log_probs.tree_of) -> Any:
            tree = own(model, sequences)
            read.append((sum(map(length, sequences)) - len(sequences), len(tree.kind_N)))
            return tree

        with (
            patch.object(self.sampler, "sample", sample),
            patch.object(trainer, "record_old_log_probs", record),
            patch.object(log_probs, "tree_of", tree_of),
        ):
            started = time.perf_counter()
            trainer.train_step(self.state, self.rows, self.config, self.verifiers, self.sampler)
            seconds = time.perf_counter() - started
        return {
            "step": seconds,
            "sampling": sum(sampled),
            "old log-probabilities": sum(recorded),
            "updates": seconds - sum(sampled) - sum(recorded),
            "tokens": sum(len(response.token_ids) for group in groups for response in group),
            "tokens decoded": sum(map(distinct_tokens, groups)),
            "tokens to read": sum(tokens for tokens, _ in read),
            "tokens computed": sum(computed for _, computed in read),
        }


def distinct_tokens(group: list[Response]) -> int:
    """Counts the tokens of responses to one prompt, once where they start alike."""
    return len({tuple(one.token_ids[: end + 1]) for one in group for end in range(len(one.token_ids))})


def timed(seconds: list[float], function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Calls a function and notes its seconds."""
    started = time.perf_counter()
    result = function(*given, **named)
    seconds.append(time.perf_counter() - started)
    return result


def prompts_of(config: Config, rows: list[Row], step: int) -> list[Any]:
    """Returns the prompts that training chooses for a step, from 1 on; the same for all sides."""
    return [row["prompt"] for row in choose_prompts(phase_of(config.rl, 1), rows, config.seed, step)]
