"""Token records: a few responses of a step, token by token, for the analysis to show.

They come from the step's last update, where the policy has moved furthest from the one that sampled them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from klear_lab.policy.codec import Codec
from klear_lab.rl.loss import OldLogProbs, ScoredResponse, TokenMeasures
from klear_lab.rl.trainer import StepResult

COLUMNS = (
    *("prompt_id", "prompt", "response", "position", "token_id", "token", "log_prob", "old_log_prob", "ratio"),
    *("advantage", "entropy", "region", "weight"),
)


def last_update_frame(codec: Codec, result: StepResult, responses_per_prompt: int, prompts: int) -> pd.DataFrame:
    """Returns one row for each response token of the last update's last `prompts` groups.

    Columns: prompt_id, prompt, response (its place in the group), position, token_id, token (its text), log_prob,
    old_log_prob, ratio, advantage, entropy (nats), region (none, low, high or dual), weight (F A).
    """
    tokens = result.updates[-1].result.tokens
    group_N = tokens.number // responses_per_prompt
    chosen_N = torch.isin(group_N, group_N.unique()[-prompts:])
    frame = pd.DataFrame({name: values[chosen_N].numpy() for name, values in vars(tokens).items()})
    frame = frame.assign(region=regions(tokens)[chosen_N.numpy()])
    frame["group"], frame["response"] = divmod(frame["number"], responses_per_prompt)
    frame = frame.sort_values(["group", "response", "position"], ignore_index=True)
    rows = {group: result.prompts[group] for group in frame["group"].unique()}
    texts = {token: codec.decode_token(token) for token in frame["token_id"].unique().tolist()}
    frame = frame.assign(
        prompt_id=frame["group"].map({group: str(row.get("id", group)) for group, row in rows.items()}),
        prompt=frame["group"].map({group: codec.prompt_text(row["prompt"]) for group, row in rows.items()}),
        token=frame["token_id"].map(texts),
        ratio=np.exp(frame["log_prob"] - frame["old_log_prob"]),
    )
    return frame[[*COLUMNS]]


def regions(tokens: TokenMeasures) -> np.ndarray:
    """Returns the region of each token, as text; a token beyond the dual-clip bound is in no other region."""
    masks = [mask.numpy() for mask in (tokens.dual, tokens.low, tokens.high)]
    return np.select(masks, ["dual", "low", "high"], "none")


def responses_frame(codec: Codec, batches: Sequence[tuple[Sequence[ScoredResponse], OldLogProbs]]) -> pd.DataFrame:
    """Returns one row for each response of mini-batches that weren't applied, with all that made their loss."""
    return pd.DataFrame(
        [
            {
                "batch": batch,
                "prompt": codec.decode(r.prompt_ids),
                "response": codec.decode(r.response_ids),
                "prompt_ids": r.prompt_ids,
                "response_ids": r.response_ids,
                "old_log_prob": old_log_probs[r.number].float().cpu().tolist(),
                "advantage": r.advantage,
                "correct": r.correct,
                "truncated": r.truncated,
            }
            for batch, (responses, old_log_probs) in enumerate(batches)
            for r in responses
        ]
    )
