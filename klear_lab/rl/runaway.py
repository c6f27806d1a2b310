"""Finds where a run runs away: its entropy, its responses' length or the share of truncated ones.

    entropy_collapse   entropy below a tenth of its reference, the mean of the first 5 steps
    entropy_explosion  entropy above 3 times that reference
    truncated          more than half of the responses truncated, after a step with less than a quarter
    length             responses at least twice as long as about 10 steps before (mean of the steps 10 to 12 back)

Each must hold for 3 steps in a row, so that one odd step warns of nothing. An episode of it lasts until it fails
to hold for 3 steps in a row, and each episode has one warning. Steps that lack the number, as steps without an
update lack the entropy, are passed over. The history of a phase of RL stands alone: its prompts are others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

IN_A_ROW = 3
REFERENCE_STEPS = 5
COLLAPSED, EXPLODED = 0.1, 3.0  # times the reference
TRUNCATED, BEFORE = 0.5, 0.25  # shares of responses
NEAREST_BACK, FURTHEST_BACK, LONGER = 10, 12, 2.0

References = list[float | None]  # what each step's value is compared with; None where there is nothing yet


@dataclass(frozen=True)
class Runaway:
    """Warns of an episode that began; `step` is the one at which that was certain, `text` a line for the log."""

    kind: str
    step: int
    text: str


@dataclass(frozen=True)
class Rule:
    """Compares a metric's value at each step with a reference made of the values before.

    `words` say what holds, with `{value}` and `{reference}` in them; `advice` is what people do about it.
    """

    kind: str
    metric: str
    references: Callable[[Sequence[float]], References]
    holds: Callable[[float, float], bool]
    words: str
    advice: str


def find_runaways(history: Sequence[Mapping[str, Any]]) -> list[Runaway]:
    """Returns the warnings of a history, in the order of their steps.

    history: lines of metrics with their `step`, ascending, of one phase of RL.
    """
    found = [runaway for rule in RULES for runaway in episodes(rule, history)]
    return sorted(found, key=lambda runaway: runaway.step)


def episodes(rule: Rule, history: Sequence[Mapping[str, Any]]) -> list[Runaway]:
    """Returns one warning for each episode of one rule."""
    known = [(line["step"], line[rule.metric]) for line in history if line.get(rule.metric) is not None]
    references = rule.references([value for _, value in known])
    found: list[Runaway] = []
    within, against = False, 0  # steps in a row that speak against what is thought so far
    for (step, value), reference in zip(known, references, strict=True):
        holds = reference is not None and rule.holds(value, reference)
        against = against + 1 if holds != within else 0
        if against == IN_A_ROW:
            within, against = holds, 0
            if within:
                words = rule.words.format(value=value, reference=reference)
                text = f"RL step {step}: {words}, for {IN_A_ROW} steps in a row; people {rule.advice}"
                found.append(Runaway(rule.kind, step, text))
    return found


def mean_of_the_first(values: Sequence[float]) -> References:
    """Returns the mean of the first steps for every later one."""
    first = values[:REFERENCE_STEPS]
    return [None] * len(first) + [sum(first) / REFERENCE_STEPS] * (len(values) - len(first))


def lowest_so_far(values: Sequence[float]) -> References:
    """Returns the lowest value up to each step."""
    return [*accumulate(values, min)]


def mean_some_steps_back(values: Sequence[float]) -> References:
    """Returns for each step the mean of the steps that lie `NEAREST_BACK` to `FURTHEST_BACK` before it."""
    width = FURTHEST_BACK - NEAREST_BACK + 1
    starts = range(len(values) - FURTHEST_BACK)
    return [None] * min(len(values), FURTHEST_BACK) + [sum(values[a : a + width]) / width for a in starts]


RULES = (
    Rule(
        "entropy_collapse",
        "policy/entropy",
        mean_of_the_first,
        lambda entropy, reference: entropy < COLLAPSED * reference,
        "entropy {value:.3g} is below a tenth of {reference:.3g}, its mean over the first 5 steps",
        "lower rl.learning_rate, raise clip_method.eps_high, or take harder prompts",
    ),
    Rule(
        "entropy_explosion",
        "policy/entropy",
        mean_of_the_first,
        lambda entropy, reference: entropy > EXPLODED * reference,
        "entropy {value:.3g} is above 3 times {reference:.3g}, its mean over the first 5 steps",
        "lower rl.learning_rate or rl.max_grad_norm, or take fewer updates a rollout (a higher "
        "rl.mini_batch_prompts)",
    ),
    Rule(
        "truncated",
        "rollout/truncated_fraction",
        lowest_so_far,
        lambda share, lowest: share > TRUNCATED and lowest < BEFORE,
        "{value:.0%} of the responses are truncated, {reference:.0%} were in the best step",
        "look for loops in samples.jsonl, raise rl.max_response_tokens, or set rl.mask_overlong=true",
    ),
    Rule(
        "length",
        "rollout/length_mean",
        mean_some_steps_back,
        lambda length, reference: length >= LONGER * reference,
        "responses have {value:.0f} tokens, at least twice the {reference:.0f} of 10 to 12 steps before",
        "look for loops and fillers in samples.jsonl, and lower rl.learning_rate where there are some",
    ),
)
