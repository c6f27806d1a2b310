"""Our two row formats: what a row must hold for us to use it, checked on rows from anywhere.

RL rows: {"id", "data_source", "prompt": [messages], "ability", "reward_model": {"ground_truth", "style"}}, and
where a strong model has tried the row, how many "completions" it wrote and how many "passed" (rl_filters.py); no
completions mean that none has
SFT rows: {"prompt": [messages], "response", "source", "teacher", "difficulty": 0..1 or None, "correct": bool or
None}
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from klear_lab.config import ConfigError
from klear_lab.data.columns import KEYS, MISSING, find_value, is_kept
from klear_lab.data.suggestions import check_for_json, suggested
from klear_lab.rows import BadRow, RawRow, Row, shown
from klear_lab.verify.registry import verifier_of

ROLES = ("system", "user", "assistant")
MOST_COMPLETIONS = 1_000_000_000


def make_row(raw: RawRow, columns: Mapping[str, Any], kind: str) -> Row | None:
    """Maps a raw row to our format; None if `columns` doesn't keep it. Raises `BadRow` if that can't be done."""
    if isinstance(raw.content, BadRow):
        raise raw.content
    if not is_kept(raw.content, columns):
        return None
    sources = {key: columns[key] for key in KEYS[kind] if columns.get(key) is not None}
    check_for_json(raw.content, sources)
    values: dict[str, Any] = {}
    try:
        for key, source in sources.items():
            values[key] = find_value(raw.content, source, key)
        return rl_row(values, raw.name) if kind == "rl" else sft_row(values)
    except BadRow as problem:
        key = str(problem).partition(":")[0]
        problem.mapping = suggested(key, sources.get(key), values.get(key, MISSING), raw.content)
        raise


def rl_row(values: Mapping[str, Any], name: str) -> Row:
    """Makes an RL row from the values of our keys; `name` is the id of a row that brings none.

    Raises `BadRow` for a value of the wrong type, an unknown data source, and tests that its verifier can't read.
    """
    row_id = values.get("id")
    row = {
        "id": name if row_id is None else must_be_text(id_text(row_id), "id"),
        "data_source": must_be_text(values["data_source"], "data_source"),
        "prompt": without_answer(messages(values["prompt"])),
        "ability": must_be_text(values["ability"], "ability"),
        "reward_model": {
            "ground_truth": must_be_text(values["ground_truth"], "ground_truth"),
            "style": must_be_text(values["style"], "style"),
        },
    }
    try:
        kind = verifier_of(row)
    except ConfigError as error:
        raise BadRow("unknown data_source", f"data_source: {error}") from error
    try:
        kind.check(row)
    except (ConfigError, KeyError, AttributeError, RecursionError) as error:
        raise BadRow("unreadable tests", f"ground_truth: {error}") from error
    return row | tries(values.get("completions"), values.get("passed"))


def tries(completions: Any, passed: Any) -> dict[str, int]:
    """Returns how many completions a strong model wrote and how many passed; {} where it wrote none.

    Raises `BadRow` for other values than whole numbers with 0 <= passed <= completions.
    """
    if completions is None and passed is None:
        return {}
    completions, passed = whole(completions), whole(passed)
    for key, value in (("completions", completions), ("passed", passed)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadRow(
                "wrong type", f"{key}: is {shown(value)}; completions and passed are whole numbers, or null"
            )
    if completions > MOST_COMPLETIONS:
        most = f"must be at most {MOST_COMPLETIONS:,}"
        raise BadRow("out of range", f"completions: is {shown(completions)}; {most}")
    if not 0 <= passed <= completions:
        raise BadRow("out of range", f"passed: is {passed}; must be from 0 to completions, {completions}")
    return {"completions": completions, "passed": passed} if completions else {}


def sft_row(values: Mapping[str, Any]) -> Row:
    """Makes an SFT row from the values of our keys. Raises `BadRow` for one of the wrong type or out of range."""
    difficulty, correct = values.get("difficulty"), values.get("correct")
    if difficulty is not None and not (isinstance(difficulty, int | float) and not isinstance(difficulty, bool)):
        raise BadRow("wrong type", f"difficulty: is {shown(difficulty)}; must be a number from 0 to 1, or null")
    if difficulty is not None and not 0 <= difficulty <= 1:
        raise BadRow("out of range", f"difficulty: is {shown(difficulty)}; must be a number from 0 to 1, or null")
    if not isinstance(correct, bool | None):
        raise BadRow("wrong type", f"correct: is {shown(correct)}; must be true, false or null")
    return {
        "prompt": messages(values["prompt"]),
        "response": must_be_text(values["response"], "response"),
        "source": must_be_text(values["source"], "source"),
        "teacher": must_be_text(values["teacher"], "teacher"),
        "difficulty": difficulty,
        "correct": correct,
    }


def whole(value: Any) -> Any:
    """A whole number that is written with a fraction (16.0, as tables with gaps do), else the value itself."""
    is_whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)
    return int(value) if is_whole else value


def without_answer(prompt: list[dict[str, str]]) -> list[dict[str, str]]:
    """The prompt of an RL row. Raises `BadRow` for one that shows the answer."""
    if prompt[-1]["role"] == "assistant":
        raise BadRow("answer in prompt", "prompt: ends in a turn of the assistant's, which shows the answer")
    return prompt


def id_text(value: Any) -> Any:
    """Returns a whole number as text, anything else as it is."""
    value = whole(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def must_be_text(value: Any, key: str) -> str:
    """Returns the value if it is text that isn't empty and that UTF-8 can encode. Raises `BadRow` otherwise."""
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{key}: is {shown(value)}; must be text")
    if not value.strip():
        raise BadRow(f"empty {key}", f"{key}: is empty")
    return encodable(value, key)


def encodable(text: str, key: str) -> str:
    """Returns the text itself. Raises `BadRow` for half a surrogate pair, which JSON can hold and UTF-8 can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"{error.reason}, character {error.start}"
        raise BadRow("wrong encoding", f"{key}: can't be UTF-8 ({found})") from error
    return text


def messages(prompt: Any) -> list[dict[str, str]]:
    """Returns a prompt as messages; a text becomes one user's message.

    Raises `BadRow` for a prompt of another form, and for one where the user says nothing.
    """
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not all(is_message(message) for message in prompt):
        must_be = f"text, or a list of {{role: {' | '.join(ROLES)}, content: text}}"
        raise BadRow("wrong type", f"prompt: is {shown(prompt)}; must be {must_be}")
    if not any(message["role"] == "user" and message["content"].strip() for message in prompt):
        raise BadRow("empty prompt", f"prompt: is {shown(prompt)}; must have a user's message that isn't empty")
    return [{"role": m["role"], "content": encodable(m["content"], "prompt")} for m in prompt]


def is_message(message: Any) -> bool:
    """Tells whether this is a message with a known role and text as its content."""
    return isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)
