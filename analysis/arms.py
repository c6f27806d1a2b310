"""Names and orders arms, that is clip methods with their parameters, alike wherever they are shown.

A clip method without a line in METHOD_LABELS keeps its own name, and gets a colour that is free; both can be
chosen, here and in `analysis/draw/figure.py`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

# The order is the order of rows and legends, and the sign of a difference: later minus earlier, so that the
# paper's claims C7-C9 read "GPPO - CISPO", "GPPO - Clip-Higher", "CISPO - Clip-Higher".
METHOD_LABELS = {
    "none": "No clipping",
    "grpo": "GRPO",
    "clip_higher": "GRPO w/ Clip-Higher",
    "cispo_upper": "CISPO-upper",
    "cispo": "CISPO",
    "ce_gppo": "CE-GPPO",
    "gppo": "GPPO",
    "gppo_upper": "GPPO-upper",
    "sapo": "SAPO",
    "dppo_tv": "DPPO-TV",
    "dppo_kl": "DPPO-KL",
    "dcpo": "DCPO",
    "aspo": "ASPO",
    "topr": "TOPR",
    "drpo": "DRPO",
    "dgpo": "DGPO",
    "gspo": "GSPO",
    "luspo": "LUSPO",
    "gmpo": "GMPO",
    "vespo": "VESPO",
    "bapo": "BAPO",
    "clip_cov": "Clip-Cov",
    "kl_cov": "KL-Cov",
}


def method_name(clip_method: Mapping[str, Any]) -> str:
    """Returns the name of a `clip_method` config's method; one of a person's own is named after its function."""
    name = str(clip_method["name"])
    return str(clip_method.get("function")).rpartition(":")[2] if name == "custom" else name


def method_label(method: str) -> str:
    """Returns the printed name of a clip method; one without a line in METHOD_LABELS keeps its own name."""
    return METHOD_LABELS.get(method, method)


def describe_arm(arm: Mapping[str, Any]) -> str:
    """Returns an arm as a reader names it: "easy, only_true" or "top_sources=2"."""
    words = {key: as_words(value) for key, value in arm.items()}
    short = short_keys(words)
    return ", ".join(f"{short[key]}={word}" if "." in key else word for key, word in words.items())


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Returns each dotted key's last part, and the whole key where that of another one is the same."""
    last = {key: key.rpartition(".")[2] for key in keys}
    times = Counter(last.values())
    return {key: part if times[part] == 1 else key for key, part in last.items()}


def as_words(value: Any) -> str:
    """Returns a value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def arm_order(method: str, label: str) -> tuple[int, str, str]:
    """Returns a sort key: methods go by METHOD_LABELS, unknown ones last, variants of one method by label."""
    methods = list(METHOD_LABELS)
    return (methods.index(method) if method in methods else len(methods), method, label)


def arm_labels(clip_methods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a label for each `clip_method` config, different wherever two configs differ.

    A method with one set of parameters is just its name. Where the same method comes with several, the label
    names the parameters in which they differ, e.g. "GPPO (dual_clip=3)". A parameter that is null counts as
    absent, so the variant without dual-clip stays "GPPO".
    """
    configs = list(clip_methods)
    words = [json.dumps(config, sort_keys=True) for config in configs]
    different = dict(zip(words, configs, strict=True))  # few, where runs are many
    labels = {
        word: _label(own, [other for other in different.values() if method_name(other) == method_name(own)])
        for word, own in different.items()
    }
    return [labels[word] for word in words]


def _label(own: Mapping[str, Any], same_method: list[Mapping[str, Any]]) -> str:
    keys = sorted({key for other in same_method for key in other})
    differing = [key for key in keys if any(other.get(key) != own.get(key) for other in same_method)]
    parameters = ", ".join(f"{key}={own[key]}" for key in differing if own.get(key) is not None)
    name = method_label(method_name(own))
    return f"{name} ({parameters})" if parameters else name
