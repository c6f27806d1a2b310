"""Clip methods of one's own, from a file outside of the repository; tried out before anything trains.

    python -m klear_lab.run clip_method=custom clip_method.function=my_file.py:my_method +clip_method.eps=0.3

The function is one of tokens and parameters like those beside this file. Where it looks at whole responses or at
the mini-batch, it says so with `describe`.
"""

import inspect

import torch

from klear_lab.own_code import load_function, source_of, split
from klear_lab.rl.clip_methods.interface import Responses, definition_of, parameters_of
from klear_lab.rl.clip_methods.method import ClipMethod, check_names, check_numbers, check_ranges

LOG_RATIOS = (-20.0, -5.0, -1.0, -0.1, 0.0, 0.1, 1.0, 5.0)
ADVANTAGES = (-1.5, 0.0, 1.0)  # of a response each
OLD_LOG_PROB = -6.0


def make_own_method(
    *, function: str | None = None, source: str | None = None, dual_clip: float | None = None, **parameters: float
) -> ClipMethod:
    """Makes a method of the function at `my_file.py:name` or `my_module:name`, whose file has the hash `source`.

    Raises `ValueError` for a function that can't be found or loaded, and for parameters that it doesn't take.
    """
    if function is None:
        raise ValueError("function=null: must be my_file.py:my_function or my_module:my_function")
    try:
        loaded = load_function(function, source or source_of(function))
        definition = definition_of(loaded)
    except (ValueError, TypeError) as error:
        raise ValueError(f"function={function}: {error}") from error
    if source is None:
        raise ValueError("source: has no value; a YAML file of your own begins with `defaults: [custom, _self_]`")
    name, allowed = split(function)[1], parameters_of(loaded)
    given = {**parameters, **({} if dual_clip is None else {"dual_clip": dual_clip})}
    check_names(name, [*allowed, *([] if definition.of_responses else ["dual_clip"])], given)
    check_numbers(given)
    check_ranges({key: value for key, value in given.items() if key == "dual_clip"})
    bound = {**allowed, **parameters}
    for key, value in bound.items():
        if value is inspect.Parameter.empty:
            raise ValueError(f"{key}: has no value; {name} needs it: +clip_method.{key}=...")
    return ClipMethod(name, definition, bound, dual_clip)


def try_out(method: ClipMethod) -> None:
    """Calls a method on a small grid of ratios and advantages. Raises `ValueError` that says what it did wrong."""
    count = len(LOG_RATIOS)
    log_ratio = torch.tensor(LOG_RATIOS).repeat(len(ADVANTAGES))
    advantage = torch.tensor(ADVANTAGES).repeat_interleave(count)
    old_log_prob = torch.full_like(log_ratio, OLD_LOG_PROB)
    log_prob = (old_log_prob + log_ratio).requires_grad_()
    tokens, responses = (log_prob, old_log_prob, advantage), Responses.of([count] * len(ADVANTAGES))
    try:
        statistics = method.measure(*tokens, responses=responses, sampler_log_prob=old_log_prob)
        objective = method(
            *tokens, responses=responses, sampler_log_prob=old_log_prob, statistics=statistics
        ).objective
    except (Exception, SystemExit) as error:  # a person's own code may raise anything
        raise ValueError(f"raised {type(error).__name__}: {error}") from error
    check_objective(objective, log_ratio, advantage)
    if not objective.requires_grad:
        raise ValueError("its objective has no gradient: it doesn't depend on tokens.log_prob or tokens.log_ratio")
    (gradient,) = torch.autograd.grad(objective.sum(), log_prob, allow_unused=True)
    if gradient is None or not gradient.any():
        raise ValueError("its gradient is 0 everywhere, so nothing would be learned")
    check_finite("the gradient of its objective", gradient, log_ratio, advantage)


def check_objective(objective: object, log_ratio: torch.Tensor, advantage: torch.Tensor) -> None:
    """Raises `ValueError` unless an objective is a finite number for each token."""
    if not isinstance(objective, torch.Tensor):
        raise ValueError(f"returned {type(objective).__name__}, must return a tensor: the objective of each token")
    if objective.shape != log_ratio.shape:
        given, wanted = tuple(objective.shape), tuple(log_ratio.shape)
        raise ValueError(f"returned a tensor of shape {given} for tokens of shape {wanted}; the two must agree")
    check_finite("its objective", objective.detach(), log_ratio, advantage)


def check_finite(what: str, values: torch.Tensor, log_ratio: torch.Tensor, advantage: torch.Tensor) -> None:
    """Raises `ValueError` that names the first token where a value isn't finite."""
    for value, x, a in zip(values.tolist(), log_ratio.tolist(), advantage.tolist(), strict=True):
        if not torch.tensor(value).isfinite():
            raise ValueError(f"{what} is {value} for a token with log-ratio {x:g} and advantage {a:g}")
