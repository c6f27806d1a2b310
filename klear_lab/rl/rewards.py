"""Rewards: what a response earns, and why. Correctness, format and reward are kept apart.

A well-formed response is one `<think>...</think>` and then its answer. Anything else is never correct, and
the reward's format penalties come on top of `wrong`. The row's `data_source` chooses the verifier, by
containment, since released files add suffixes to the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from klear_lab.config import RewardConfig
from klear_lab.tasks import chain

VERIFIERS: dict[str, Callable[[str, str], bool]] = {"chain": chain.verify}


@dataclass(frozen=True)
class Score:
    """`correct` says what the verifier found, `reward` what RL is given."""

    correct: bool
    well_formed: bool
    reward: float


def score_response(response: str, row: dict[str, Any], config: RewardConfig) -> Score:
    """Raises `ValueError` for a row that no verifier knows."""
    well_formed = is_well_formed(response)
    correct = well_formed and verify(response.partition("</think>")[2], row)
    deserved = correct if config.uses_verifier else well_formed
    reward = config.correct if deserved else config.wrong
    if "<think>" not in response:
        reward += config.no_think
    if response.count("</think>") != 1:
        reward += config.unclosed_think
    return Score(correct, well_formed, reward)


def is_well_formed(response: str) -> bool:
    """Starts with `<think>`, closes it, and neither tag comes again."""
    return (
        response.lstrip().startswith("<think>")
        and response.count("<think>") == 1
        and response.count("</think>") == 1
    )


def verify(answer: str, row: dict[str, Any]) -> bool:
    """Whether the text after the thought is the row's answer."""
    for name, verifier in VERIFIERS.items():
        if name in row["data_source"]:
            return verifier(answer, row["reward_model"]["ground_truth"])
    raise ValueError(
        f"row {row.get('id')}: data_source={row['data_source']} has no verifier; one of {', '.join(VERIFIERS)}"
    )
