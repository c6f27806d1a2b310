"""What to type where a row holds the right thing in another form: the mapping of its column, as Hydra reads it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from klear_lab.data.columns import KEYS, MAY_BE_ABSENT, MISSING, OURS, absent_or, as_list, look_up
from klear_lab.data.conversions import TRUTHS
from klear_lab.rows import BadRow

PLAIN_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)  # that Hydra reads without quotes
NOT_WORDS = ("null", "true", "false", "nan", "inf")


def check_for_json(content: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Raises `BadRow` where a prompt, or what a path leads into, is text that looks like JSON."""
    asked = {key: source for key, s in sources.items() if (source := read_as_json(content, key, s)) is not None}
    if asked:
        key, source = next(iter(asked.items()))
        inside = "" if key == source["column"] else f"{source['column']} "
        raise BadRow("JSON in text", f"{key}: {inside}is text that looks like JSON", mapping=asked)


def read_as_json(content: Mapping[str, Any], key: str, source: Any) -> dict[str, Any] | None:
    """Returns the source that reads a column as JSON, None where that isn't needed or wouldn't help."""
    path = source if isinstance(source, str) else source.get("column") if set(source) == {"column"} else None
    if path is None:
        return None
    value = look_up(content, path)
    if value is not MISSING:
        found = parsed(value) if key == "prompt" else None
        is_prompt = isinstance(found, list) and found and all(is_turn(turn) for turn in found)
        return {"column": path, "as": "json"} if is_prompt else None
    steps = path.split(".")
    for i in range(1, len(steps)):
        outer, inner = ".".join(steps[:i]), ".".join(steps[i:])
        if look_up(parsed(look_up(content, outer)), inner) is not MISSING:
            return {"column": outer, "as": "json", "path": inner}
    return None


def is_turn(turn: Any) -> bool:
    """Tells whether this is a turn of a conversation, in either of the usual forms."""
    return isinstance(turn, dict) and ({"role", "content"} <= set(turn) or {"from", "value"} <= set(turn))


def parsed(value: Any) -> Any:
    """Returns the object or list that text says in JSON; None for anything else."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def suggested(key: str, source: Any, value: Any, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a mapping of `key` that reads what its source can't, None where no conversion does.

    `value`: what the source gave, `MISSING` where one of its conversions failed.
    """
    if isinstance(source, str):
        source = {"column": source}
    if not isinstance(source, Mapping) or "column" not in source or "path" in source:  # a constant, joined texts
        return None
    before: list[str] = as_list(source.get("as", []))
    if value is MISSING:  # what a list of messages is asked for is often text that says one
        is_json = parsed(look_up(content, source["column"])) is not None and "json" not in before
        return {key: {**source, "as": ["json", *before]}} if is_json and before else None
    name = conversion_for(key, value)
    every = [*before, name]
    return {key: {**source, "as": every if before else name}} if name else None


def conversion_for(key: str, value: Any) -> str | None:
    """Names the conversion that makes a value of another form ours, None where there is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_conversation = isinstance(value, list) and len(value) > 1 and all(is_turn(turn) for turn in value)
    answered = is_conversation and value[-1].get("role", value[-1].get("from")) in ("assistant", "gpt")
    if answered and key in ("prompt", "response"):
        return "before_last_answer" if key == "prompt" else "last_answer"
    if key == "ground_truth" and is_number:
        return "text"
    if key == "correct" and str(value).strip().lower() in TRUTHS:
        return "truth"
    if key in ("completions", "passed", "difficulty") and isinstance(value, str):
        return "json" if re.fullmatch(r"\d+(\.\d+)?", value) else None
    return None


def typed(
    mapping: Mapping[str, Any], columns: Mapping[str, Any], kind: str, where: str, content: Mapping[str, Any]
) -> str:
    """Says what to type for a mapping of some columns.

    `columns`: those of the config, `where` their key. Without any, rows are in our format, and a mapping names
    every column; optional ones that `content` has are named too.
    """
    if set(columns) - {"keep", "drop"}:
        lines = [f"{plus(columns.get(key), s)}{where}.{key}={hydra(s)}" for key, s in mapping.items()]
    else:
        ours = {key: absent_or(key) if key in MAY_BE_ABSENT else OURS.get(key, key) for key in KEYS[kind]}
        named = {key: s for key, s in ours.items() if key not in MAY_BE_ABSENT or key in content or key in mapping}
        lines = [f"+{where}={hydra({**named, **mapping})}"]
    return "map it with " + " ".join(f"'{line}'" for line in lines)


def plus(before: Any, source: Mapping[str, Any]) -> str:
    """Returns the + of an override that adds a key, to the mapping or to a column's source, else nothing."""
    adds = before is None or (isinstance(before, Mapping) and not set(source) <= set(before))
    return "+" if adds else ""


def hydra(value: Any) -> str:
    """Writes a value as an override of Hydra, for use within single quotes of a shell."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {hydra(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(hydra, value)) + "]"
    if isinstance(value, str) and not (PLAIN_WORD.fullmatch(value) and value.lower() not in NOT_WORDS):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return value if isinstance(value, str) else json.dumps(value)
