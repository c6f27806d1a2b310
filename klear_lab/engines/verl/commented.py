"""The settings of an experiment's file, each with the comment that says where its value comes from.

A comment stands at the end of a setting's line, or above it. It is the only place that says the source; README.md
of a dry run is made from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from klear_lab.command_line import CONF


@dataclass(frozen=True)
class Setting:
    """Holds a dotted key, its value in the file as it is written there, and its comment, "" without one."""

    key: str
    value: str
    comment: str


def settings_of(file: Path) -> list[Setting]:
    """Returns all settings of a YAML file, in their order; groups that it chooses are settings too."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    return [
        Setting(key, yaml.safe_load(text[node.start_mark.index : node.end_mark.index]), comment_of(lines, node))
        for key, node in leaves(yaml.compose(text), "")
    ]


def file_of(experiment: str) -> Path:
    """Returns where an experiment's file is; one from a folder of a person's own isn't there."""
    return CONF / "experiment" / f"{experiment}.yaml"


def leaves(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, yaml.Node]]:
    """Yields the dotted key of each value that has none below it, and its node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from leaves(value, f"{prefix}.{key.value}" if prefix else key.value)
    elif isinstance(node, yaml.SequenceNode) and prefix == "defaults":
        for choice in node.value:
            if isinstance(choice, yaml.MappingNode):
                yield from leaves(choice, "")
    elif isinstance(node, yaml.SequenceNode) and any(isinstance(n, yaml.MappingNode) for n in node.value):
        for number, value in enumerate(node.value):
            yield from leaves(value, f"{prefix}[{number}]")
    elif node is not None:
        yield prefix, node


def comment_of(lines: list[str], node: yaml.Node) -> str:
    """Returns the block of comments right above a value's line, and the one at the line's end."""
    number = node.start_mark.line
    above: list[str] = []
    while number > len(above) and (line := lines[number - 1 - len(above)].strip()).startswith("#"):
        above.insert(0, line.lstrip("# "))
    _, _, inline = lines[node.end_mark.line if node.end_mark.column else number][node.end_mark.column :].partition(
        "#"
    )
    return " ".join([*above, *([inline.strip()] if inline.strip() else [])])
