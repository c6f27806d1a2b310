"""Makes clip methods from their names and parameters."""

from typing import Any

from klear_lab.rl.clip_methods.interface import CLIP_METHODS, parameters_of
from klear_lab.rl.clip_methods.method import ClipMethod, check_names, check_numbers, check_order, check_ranges
from klear_lab.rl.clip_methods.own import make_own_method

OWN = "custom"  # the name of a method that the repository doesn't have


def make_clip_method(name: str, *, dual_clip: float | None = None, **parameters: Any) -> ClipMethod:
    """Makes a clip method with its parameters bound; those not given take the published values.

    The name custom takes a function of one's own, by `function` and the hash of its file, `source` (own.py).
    Raises `ValueError` for an unknown name and for a parameter that is unknown or out of range.
    """
    if name == OWN:
        return make_own_method(dual_clip=dual_clip, **parameters)
    if name not in CLIP_METHODS:
        raise ValueError(f"name={name}: must be one of {', '.join(sorted([*CLIP_METHODS, OWN]))}")
    definition = CLIP_METHODS[name]
    allowed = parameters_of(definition.objective)
    # A dual clip is a bound on a token's own ratio, which isn't what these methods weigh by.
    optional = {} if definition.of_responses else {"dual_clip": dual_clip}
    given = {**parameters, **({} if dual_clip is None else {"dual_clip": dual_clip})}
    check_names(name, [*allowed, *optional], given)
    check_numbers(given)
    check_ranges(given)
    check_order(name, {**allowed, **parameters})
    return ClipMethod(name, definition, {**allowed, **parameters}, dual_clip)
