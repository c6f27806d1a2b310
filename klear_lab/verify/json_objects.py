"""Reads JSON whose objects have each key once.

The standard library takes the last value of a key that stands twice, and nobody learns that the first is lost.
"""

import json
from typing import Any


class RepeatedKey(ValueError):
    """Says that an object of JSON has a key twice."""


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of its keys and values. Raises `RepeatedKey`."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in content if names.count(name) > 1)
        raise RepeatedKey(f"has the key {repeated!r} twice in one object; keep one of them")
    return content


# Made once: json.loads makes a decoder for each text that it is given a hook for.
DECODER = json.JSONDecoder(object_pairs_hook=each_key_once)


def read_json(text: str | bytes) -> Any:
    """Returns the value that a text says. Raises `RepeatedKey`, and any other `ValueError` where it isn't JSON."""
    return DECODER.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))


def read_ground_truth(text: str, form: str = "") -> Any:
    """Returns the value that a ground truth says. Raises `ValueError` in words; `form` says what it must be."""
    try:
        return read_json(text)
    except RepeatedKey as error:
        raise ValueError(f"ground_truth {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"ground_truth is not JSON: {error}{form and f'; {form}'}") from error
