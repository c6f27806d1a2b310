"""The evaluation before the first RL step, which all arms that start from one checkpoint share.

Their policies are the same there, and so are their draws, so the stage cache keeps what the first arm found. With
five evaluations a run that is a fifth of what evaluation costs.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from klear_lab.data.lengths import longest_prompt
from klear_lab.evaluate import Evaluation, evaluate
from klear_lab.identity import identity_of
from klear_lab.policy.model import Policy
from klear_lab.run_context import RunContext
from klear_lab.sampling.types import Sampler
from klear_lab.sft import sft_content
from klear_lab.storage.files import replace_file
from klear_lab.storage.stage_cache import STAGE_VERSIONS, cache_folder, cached, reading

SCORES, SAMPLES = "scores.json", "samples.parquet"
SAMPLED = 4096


def first_evaluation(run: RunContext, policy: Policy, sampler: Sampler) -> tuple[Evaluation, bool]:
    """Returns what the policy scores before RL, without answers, and whether another run had found it.

    Not for samplers whose draws don't come from seeds. Raises `StorageError` for a result in the cache that can't
    be read.
    """

    def make(partial: Path) -> None:
        found = evaluate(run, policy, sampler, 0, answers_kept=0)
        found.samples.to_parquet(partial / SAMPLES)
        replace_file(partial / SCORES, json.dumps(found.scores))

    content = first_evaluation_content(run) | {"weights": sample_of_weights(policy)}
    stage = cached("evaluation", content, cache_folder(run.config), make, run.stop, SCORES)
    with reading(stage.folder):
        scores = json.loads((stage.folder / SCORES).read_text(encoding="utf-8"))
        samples = pd.read_parquet(stage.folder / SAMPLES)
    return Evaluation(scores, samples, answers=[]), stage.from_cache


def first_evaluation_content(run: RunContext) -> dict[str, Any]:
    """Returns what it depends on beside the weights, by which the stage cache knows it."""
    config = run.config
    return {
        "version": STAGE_VERSIONS["rl"],
        "start": sft_content(config, run.data_key, str(run.device)),
        "max_prompt_tokens": longest_prompt(config),
        "eval": {key: value for key, value in identity_of(config.eval).items() if key != "every"},
        "max_response_tokens": config.rl.max_response_tokens,
        "reward": identity_of(config.reward),
        "sampler": identity_of(config.sampler),
        "engine": identity_of(config.engine),
        "seed": config.seed,
    }


def sample_of_weights(policy: Policy) -> str:
    """Hashes about `SAMPLED` evenly spaced numbers of each weight, which differ where a model was trained again.

    How the weights came about doesn't tell: a name on the hub may get others, and a GPU doesn't train twice alike.
    """
    found = hashlib.sha256()
    for name, weight in policy.model.named_parameters():
        flat = weight.detach().flatten()
        sampled = flat[:: max(1, len(flat) // SAMPLED)].float().cpu()
        found.update(f"{name} {tuple(weight.shape)}".encode() + sampled.numpy().tobytes())
    return found.hexdigest()[:12]
