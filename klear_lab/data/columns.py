"""The column mapping: where rows of another format hold the values of our keys, and which rows to keep.

An empty mapping is for rows in our formats (row_formats.py). Our keys are those of the formats, with
`ground_truth` and `style` for the two inside `reward_model`. The mapping gives each key a source:

    prompt: problem                              a column, or a dotted path (meta.answer, messages.0.content)
    teacher: {value: QwQ-32B}                    a constant
    source: {column: source, default: unknown}   a column, and the value to take where it is absent or null
    response: {column: conversations, as: last_answer}    through one conversion, or a list of them in order
    response: {columns: [reasoning, solution], as: thought_and_solution}      a conversion of several columns
    style: {column: reward_model, as: json, path: style}       what a path leads to within a converted value
    prompt: {parts: [question, {column: starter_code, before: "...", after: "..."}]}   non-empty texts, joined

and two more keys choose among the rows: `keep: {problem_is_valid: "Yes"}` keeps rows whose column has the value
(or one of a list), `drop: {answer: [proof, notfound]}` leaves them out. The conversions: conversions.py.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from klear_lab.config import ConfigError
from klear_lab.data.conversions import CONVERSION_ERRORS, CONVERSIONS
from klear_lab.rows import BadRow, shown

KEYS = {
    "rl": ("id", "data_source", "prompt", "ability", "ground_truth", "style", "completions", "passed"),
    "sft": ("prompt", "response", "source", "teacher", "difficulty", "correct"),
}
MAY_BE_ABSENT = ("id", "completions", "passed", "difficulty", "correct")
OURS = {"ground_truth": "reward_model.ground_truth", "style": "reward_model.style"}  # paths that aren't their keys
MISSING = object()


def checked_columns(columns: Mapping[str, Any] | None, kind: str, where: str = "columns") -> dict[str, Any]:
    """Returns the mapping, or that of our own format where it maps no key. Raises `ConfigError` for a mistake.

    `where`: the mapping's key in the config, for what to type.
    """
    if kind not in KEYS:
        raise ConfigError(f"kind={kind}: must be one of {', '.join(KEYS)}")
    if not columns or not set(columns) - {"keep", "drop"}:
        ours = {key: OURS.get(key, key) for key in KEYS[kind]}
        columns = {**(columns or {}), **ours, **{key: absent_or(key) for key in MAY_BE_ABSENT if key in ours}}
    for key, source in columns.items():
        if key in ("keep", "drop"):
            check_choice(key, source)
            continue
        if key not in KEYS[kind]:
            close = difflib.get_close_matches(key, KEYS[kind], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"columns.{key}: unknown{hint}; one of {', '.join(KEYS[kind])}, keep, drop")
        check_source(key, source)
    absent = [key for key in KEYS[kind] if key not in columns and key not in MAY_BE_ABSENT]
    if absent:
        hints = {key: f"add '+{where}.{key}={OURS.get(key, key)}' if that is its column" for key in absent}
        lines = [f"columns.{key}: says no column, and a mapping names all; {hints[key]}" for key in absent]
        raise ConfigError("\n".join(lines))
    return dict(columns)


def absent_or(key: str) -> dict[str, Any]:
    """Returns the source of a key that a row need not have: its column, or null without one."""
    return {"column": key, "default": None}


def check_source(key: str, source: Any) -> None:
    """Raises `ConfigError` for a source of another form than the module's docstring shows."""
    if isinstance(source, str):
        return
    forms = ({"value"}, {"column", "default", "as", "path"}, {"columns", "as"}, {"parts"})
    known = isinstance(source, Mapping) and any(set(source) <= form for form in forms)
    if not known or not set(source) & {"value", "column", "columns", "parts"}:
        raise ConfigError(
            f"columns.{key}={source}: must be a column, or {{value}}, {{column, default, as, path}}, "
            "{columns, as} or {parts}"
        )
    for name in ("column", "path"):
        if name in source and not is_name(source[name]):
            raise ConfigError(f"columns.{key}.{name}={source[name]}: must be a column, or a dotted path")
    for name in ("columns", "parts"):
        if name in source and not (isinstance(source[name], list) and source[name]):
            raise ConfigError(f"columns.{key}.{name}={source[name]}: must be a list of at least one column")
    for column in source.get("columns", []):
        if not is_name(column):
            raise ConfigError(f"columns.{key}.columns: {column}: must be a column, or a dotted path")
    for name in as_list(source.get("as", [])):
        if not isinstance(name, str) or name not in CONVERSIONS:
            raise ConfigError(f"columns.{key}.as={name}: must be one of {', '.join(CONVERSIONS)}")
    for part in source.get("parts", []):
        if not is_name(part) and not is_framed(part):
            raise ConfigError(
                f"columns.{key}.parts: {part}: must be a column, or {{column, before, after}}, which are text"
            )


def check_choice(key: str, choice: Any) -> None:
    """Raises `ConfigError` for a `keep` or `drop` that isn't a mapping of columns to values, or null."""
    if choice is not None and not (isinstance(choice, Mapping) and all(map(is_name, choice))):
        raise ConfigError(
            f"columns.{key}={choice}: must be a mapping of columns to the values that rows are chosen by, as in "
            "{language: [en, de]}"
        )


def is_name(value: Any) -> bool:
    """Tells whether this can be the name of a column, or a path into one."""
    return isinstance(value, str) and value != ""


def is_framed(part: Any) -> bool:
    """Tells whether this is one of the `parts` with the texts around it: {column, before, after}."""
    if not isinstance(part, Mapping) or not is_name(part.get("column")):
        return False
    return set(part) <= {"column", "before", "after"} and all(isinstance(text, str) for text in part.values())


def as_list(value: Any) -> list[Any]:
    """Returns a list as it is, anything else as a list of one."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def look_up(content: Any, path: str) -> Any:
    """Returns the value at a column or dotted path, or `MISSING` where a row has none."""
    if isinstance(content, dict) and path in content:
        return content[path]
    for step in path.split("."):
        if isinstance(content, dict) and step in content:
            content = content[step]
        elif isinstance(content, list) and step.isdecimal() and int(step) < len(content):
            content = content[int(step)]
        else:
            return MISSING
    return content


def column(content: dict[str, Any], path: str, key: str) -> Any:
    """Returns the value at a column or dotted path. Raises `BadRow` where the row has none."""
    value = look_up(content, path)
    if value is MISSING:
        raise BadRow("missing key", f"{key}: there is no {path} among {', '.join(map(str, content)) or 'no keys'}")
    return value


def find_value(content: dict[str, Any], source: Any, key: str) -> Any:
    """Reads the value of one of our keys. Raises `BadRow` for a missing column and a failed conversion."""
    if isinstance(source, str):
        return column(content, source, key)
    if "value" in source:
        return source["value"]
    if "parts" in source:
        return "".join(part_text(content, part, key) for part in source["parts"])
    if "default" in source and look_up(content, source["column"]) in (MISSING, None):
        return source["default"]
    if "columns" in source:
        value: Any = [column(content, path, key) for path in source["columns"]]
    else:
        value = column(content, source["column"], key)
    for name in as_list(source.get("as", [])):
        try:
            value = CONVERSIONS[name](value)
        except CONVERSION_ERRORS as error:
            raise BadRow("unreadable column", f"{key}: {name} can't read {shown(value)} ({error!r})") from error
    if "path" not in source:
        return value
    if (inner := look_up(value, source["path"])) is MISSING:
        raise BadRow("missing key", f"{key}: there is no {source['path']} in {source['column']}, {shown(value)}")
    return inner


def used_paths(columns: Mapping[str, Any]) -> list[str]:
    """The columns, or paths into them, that a checked mapping looks at."""
    found = [*(columns.get("keep") or {}), *(columns.get("drop") or {})]
    for source in (source for key, source in columns.items() if key not in ("keep", "drop")):
        if isinstance(source, str):
            found.append(source)
        elif isinstance(source, Mapping):
            found += [source["column"]] if "column" in source else []
            found += source.get("columns", [])
            found += [part if isinstance(part, str) else part["column"] for part in source.get("parts", [])]
    return found


def part_text(content: dict[str, Any], part: Any, key: str) -> str:
    """Returns one of the `parts` of a value, between its `before` and `after`; an empty or null text gives "".

    Raises `BadRow` for a missing column and a value that is neither text nor null.
    """
    part = {"column": part} if isinstance(part, str) else part
    text = column(content, part["column"], key)
    if not isinstance(text, str | None):
        raise BadRow("wrong type", f"{key}: {part['column']} is {shown(text)}; must be text or null")
    return f"{part.get('before', '')}{text}{part.get('after', '')}" if text and text.strip() else ""


def is_kept(content: dict[str, Any], columns: Mapping[str, Any]) -> bool:
    """Tells whether `keep` and `drop` leave a row in. Raises `BadRow` for a missing column."""
    for path, values in (columns.get("keep") or {}).items():
        if column(content, path, "keep") not in as_list(values):
            return False
    return all(
        column(content, path, "drop") not in as_list(values)
        for path, values in (columns.get("drop") or {}).items()
    )
