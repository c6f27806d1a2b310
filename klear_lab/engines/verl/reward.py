"""klear_lab's rewards in verl: the same text, the same verifiers and the same draws of test cases as elsewhere.

verl's own manager decodes without special tokens, which loses a `<think>` that is one, and one that the chat
template has opened. Each of verl's reward workers has a manager of its own, which scores one response at a time.
"""

import threading
from typing import Any

from omegaconf import OmegaConf
from transformers import GenerationConfig, PreTrainedTokenizerBase
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from klear_lab.config import RewardConfig
from klear_lab.policy.codec import make_codec
from klear_lab.rows import Row
from klear_lab.verify.registry import Verifier, verifier_of
from klear_lab.verify.rewards import Score, score_responses
from klear_lab.verify.verifiers import Verifiers


class KlearRewardManager(RewardManagerBase):
    """Scores responses for one of verl's reward workers."""

    def __init__(
        self, config: Any, tokenizer: PreTrainedTokenizerBase, compute_score: Any = None, **_: Any
    ) -> None:
        """Reads our settings from `reward.klear_lab`; verl's other arguments are for its own managers."""
        super().__init__(config, tokenizer, compute_score)
        ours: Any = OmegaConf.to_container(config.reward.klear_lab, resolve=True)
        self.settings = RewardConfig(**ours["settings"])
        self.seed, self.sandbox, self.most_tokens = ours["seed"], ours["sandbox"], ours["max_response_tokens"]
        self.steps_before = ours["steps_before"]
        stop = stop_tokens(config.actor_rollout_ref.model.path)
        self.codec = make_codec(tokenizer, stop, ours["template_arguments"])
        self.verifiers: dict[type[Verifier], Verifiers] = {}
        self.lock = threading.Lock()  # verifiers are used by one thread at a time

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Returns the reward of the last response of `data`, and what evaluation keeps of it."""
        item = data[-1:][0]
        found = item.non_tensor_batch
        about = found["extra_info"]
        row = {
            "id": about["id"],
            "data_source": about["data_source"],
            "prompt": [dict(message) for message in found["raw_prompt"]],
            "reward_model": found["reward_model"],
        }
        length = int(item.batch["attention_mask"][-item.batch["responses"].shape[-1] :].sum())
        token_ids = item.batch["responses"][:length].tolist()
        # Benchmarks run all test cases; in training those of the step, the same for all responses to a prompt.
        step = self.steps_before + found.get("global_steps", 0)  # verl counts each phase's steps from its start
        draw = None if about["benchmark"] else f"{self.seed}-tests-{step}"
        score = await self.loop.run_in_executor(None, self.score, row, token_ids, draw)
        kept = {
            "acc": float(score.correct),  # verl's name for what it reports of a benchmark
            "raw": score.raw,
            "reason": score.reason,
            "benchmark": about["benchmark"],
            "prompt_id": about["id"],
            "length": length,
            "truncated": length >= self.most_tokens and token_ids[-1] not in self.codec.stop_token_ids,
        }
        return {"reward_score": score.reward, "reward_extra_info": kept}

    def score(self, row: Row, token_ids: list[int], draw: str | None) -> Score:
        """Scores one response."""
        text = self.codec.decode_response(row["prompt"], token_ids)
        with self.lock:
            return score_responses([text], [row], self.settings, self.verifiers_of(row), draw)[0]

    def verifiers_of(self, row: Row) -> Verifiers:
        """Returns the verifiers of a row, opened with its kind's first row; they live as long as the process."""
        kind = verifier_of(row)
        if kind not in self.verifiers:
            self.verifiers[kind] = Verifiers([row], self.settings, 1, self.sandbox)
        return self.verifiers[kind]


def stop_tokens(path: str) -> int | list[int] | None:
    """Returns the stop tokens of a model's generation config, None where it has none."""
    try:
        stop: int | list[int] | None = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        return None
    return stop
