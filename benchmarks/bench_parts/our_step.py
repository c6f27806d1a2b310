"""The RL step of ours that parts measure: prompts of the prepared data, rewards that alternate, no verifier."""

import time
from typing import Any

from peers import alternating

from klear_lab.config import Config
from klear_lab.policy.model import Policy
from klear_lab.policy.training_state import start_state
from klear_lab.rl import trainer
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.rl.rollout import choose_groups, make_groups
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Sampling
from klear_lab.verify.rewards import Score


class OurSteps:
    """Takes RL steps with a policy, one after the other, and says what each took."""

    def __init__(self, config: Config, policy: Policy, rows: list[dict[str, Any]]) -> None:
        """Starts an optimizer for the policy; `rows` have the prompts."""
        rl = config.rl
        self.rl, self.policy, self.rows = rl, policy, rows
        self.state = start_state(
            policy, learning_rate=rl.learning_rate, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay
        )
        self.sampler, self.method = TransformersSampler(policy), make_clip_method(**config.clip_method)
        group = [Score(r, r > 0, True, r, "") for r in alternating(rl.responses_per_prompt)]
        self.scores = [group] * rl.prompts_per_step
        self.recording_s = 0.0
        self.record = trainer.record_old_log_probs
        trainer.record_old_log_probs = self.timed_record

    def timed_record(self, *given: Any) -> Any:
        """Records old log-probabilities as the trainer does, and adds up the seconds."""
        started = time.perf_counter()
        found = self.record(*given)
        self.recording_s += time.perf_counter() - started
        return found

    def step(self, number: int) -> dict[str, float]:
        """Takes a step; returns its seconds, whole and by part, and the tokens sampled."""
        self.recording_s = 0.0
        started = time.perf_counter()
        prompts = prompts_of(self.rows, number, self.rl.prompts_per_step)
        prompt_ids = [self.policy.codec.encode_prompt(prompt) for prompt in prompts]
        requests = make_requests(prompt_ids, self.rl.responses_per_prompt, f"bench-{number}")
        sampled = self.sampler.sample(requests, Sampling.for_rollout(self.rl))
        self.sampler.sleep()
        between = time.perf_counter()
        groups = make_groups(prompt_ids, sampled, self.scores, self.rl)
        trainer.update(self.state, choose_groups(groups, self.rl), self.method, self.rl)
        ended = time.perf_counter()
        return {
            "step": ended - started,
            "sampling": between - started,
            "old log-probabilities": self.recording_s,
            "updates": ended - between - self.recording_s,
            "tokens": sum(len(r.token_ids) for group in sampled for r in group),
        }


def prompts_of(rows: list[dict[str, Any]], step: int, count: int) -> list[Any]:
    """Returns the prompts of a step, the same for all sides."""
    return [rows[(step * count + n) % len(rows)]["prompt"] for n in range(count)]
