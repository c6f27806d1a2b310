"""Rewards: what a response earns, and why. Raw score, correctness, format and reward are kept apart.

A well-formed response is one `<think>...</think>` and then its answer. Only such a response is verified; any other
earns what the config gives its fault, and counts as incorrect whatever it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from klear_lab.config import RewardConfig
from klear_lab.rows import Row
from klear_lab.verify.registry import Verdict, verifiers_by_part
from klear_lab.verify.verifiers import Verifiers

if TYPE_CHECKING:  # preparing data imports this file with the verifiers, and needs no torch
    from klear_lab.policy.codec import Codec
    from klear_lab.sampling.types import Response

FAULTS = ("no_think", "unclosed_think", "malformed_think")  # of form, for which no verifier is asked


@dataclass(frozen=True)
class Score:
    """`raw` (0 to 1) and `correct` say what the verifier found, `reward` what RL is given, `reason` why."""

    raw: float
    correct: bool
    well_formed: bool
    reward: float
    reason: str


def reasons() -> list[str]:
    """Lists why a response may earn what it does: reasons of verifiers, then faults of form (docs/metrics.md)."""
    return [*dict.fromkeys(why for kind in verifiers_by_part().values() for why in kind.reasons), *FAULTS]


def score_responses(
    responses: Sequence[str],
    rows: Sequence[dict[str, Any]],
    config: RewardConfig,
    verifiers: Verifiers,
    draw: str | None = None,
) -> list[Score]:
    """Scores each response, in order; `draw`: see `Verifiers.verify`."""
    faults = [format_fault(response) for response in responses]
    sound = [i for i, fault in enumerate(faults) if fault is None]
    answers = [responses[i].partition("</think>")[2] for i in sound]
    verdicts = iter(verifiers.verify(answers, [rows[i] for i in sound], draw))
    return [shape(next(verdicts) if fault is None else None, fault, config) for fault in faults]


def format_fault(response: str) -> str | None:
    """Names what keeps a response from being one thought and then its answer; looks for the end first."""
    if "</think>" not in response:
        return "unclosed_think"
    if "<think>" not in response:
        return "no_think"
    once = response.count("<think>") == 1 == response.count("</think>")
    return None if once and response.lstrip().startswith("<think>") else "malformed_think"


def shape(verdict: Verdict | None, fault: str | None, config: RewardConfig) -> Score:
    """Turns a verdict, or the fault of a response that has none, into a score.

    A soft reward lies between `wrong` and `correct` by the share of tests passed (the authors' code: the mean of
    +1 and -1 over the tests), a hard one is `correct` for all of them and `wrong` otherwise.
    """
    if verdict is None:
        assert fault is not None
        earned = {"no_think": config.no_think, "unclosed_think": config.unclosed_think}.get(fault)
        return Score(0.0, False, False, config.wrong if earned is None else earned, fault)
    share = verdict.raw if config.code == "soft" else float(verdict.raw == 1)
    if not config.uses_verifier:
        share = 1.0
    reward = config.wrong + share * (config.correct - config.wrong)
    return Score(verdict.raw, verdict.raw == 1, True, reward, verdict.reason)


def score_rollout(
    codec: "Codec",
    prompts: list[Row],
    sampled: "list[list[Response]]",
    verifiers: Verifiers,
    draw: str | None,
) -> list[list[Score]]:
    """Scores all responses, verified together; returns a list for each prompt."""
    rows, texts = [], []
    for row, group in zip(prompts, sampled, strict=True):
        rows += [row] * len(group)
        texts += codec.decode_responses(row["prompt"], [response.token_ids for response in group])
    scores = iter(score_responses(texts, rows, verifiers.settings.reward, verifiers, draw))
    return [[next(scores) for _ in group] for group in sampled]
