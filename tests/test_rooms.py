"""The layout shows the architecture: which room may import which, from the imports themselves.

A room is a folder of a package, or a file that stands at its top. Rooms stand on floors; an import goes down, never
up, and never to another room of the same floor. Entry points (`__main__.py`) stand above everything.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "klear_lab": [
        {"config", "rows", "console", "worlds", "metrics", "own_code", "launchers", "outcomes", "composing"},
        {"data_source_config", "identity", "sandbox", "command_line", "progress"},
        {"storage"},
        {"policy", "tracking"},
        {"sampling"},
        {"verify"},
        {"data"},
        {"run_context"},
        {"evaluate", "sft"},
        {"rl"},
        {"engines", "plan", "unread_keys"},
        {"contradictions", "needs", "stages"},
        {"pipeline", "preflight"},
        {"validation"},
        {"arms"},
        {"sweep"},
        {"run", "settle"},
        {"__main__"},
    ],
    "analysis": [
        {"errors"},
        {"statistics", "arms"},
        {"draw"},
        {"runs", "paper"},
        {"sweeps"},
        {"claims"},
        {"settle"},
        {"report"},
        {"commands"},
        {"__main__"},
    ],
}
BETWEEN_PACKAGES = {
    "klear_lab": set(),
    "analysis": {"arms", "config", "identity", "metrics", "rl", "sandbox"},
}  # of klear_lab; arms for those that settle starts, rl for one exact claim, sandbox for what ends a process
DOORS = {("settle", "analysis.__main__")}  # klear_lab.settle is a command of the analysis, which starts runs


def room_of(path, package):
    """The folder or top-level file that a module stands in."""
    inside = path.relative_to(ROOT / package)
    return inside.stem if len(inside.parts) == 1 or inside.stem == "__main__" else inside.parts[0]


def imported(path):
    """Dotted names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def arrows(package):
    """(room, room or package that it imports, file) of every import that leaves its room."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent == ROOT / package and path.stem == "__init__":
            continue
        for name in imported(path):
            top, _, rest = name.partition(".")
            if top in FLOORS and rest:
                room = rest.split(".")[0]
                if (top, room) != (package, room_of(path, package)):
                    yield room_of(path, package), f"{top}.{room}", path.relative_to(ROOT)


def floor_of(package, room):
    return next((number for number, rooms in enumerate(FLOORS[package]) if room in rooms), None)


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor_and_no_floor_names_a_room_that_is_gone(package):
    here = {room_of(path, package) for path in (ROOT / package).rglob("*.py")} - {"__init__"}
    assert here == {room for rooms in FLOORS[package] for room in rooms}


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down_and_never_up(package):
    upward = [
        f"{file}: {room} imports {target}"
        for room, target, file in arrows(package)
        if target.startswith(f"{package}.") and floor_of(package, target.split(".")[1]) >= floor_of(package, room)
    ]
    assert not upward


@pytest.mark.parametrize("package", FLOORS)
def test_packages_meet_only_where_it_is_written_down(package):
    other = [
        f"{file}: {target}"
        for room, target, file in arrows(package)
        if (room, target) not in DOORS
        and not target.startswith(f"{package}.")
        and target.split(".")[1] not in BETWEEN_PACKAGES[package]
    ]
    assert not other


def test_data_knows_nothing_of_rl():
    assert not [file for room, target, file in arrows("klear_lab") if room == "data" and target == "klear_lab.rl"]


def test_the_imports_were_found():
    assert len([*arrows("klear_lab")]) > 100 and len([*arrows("analysis")]) > 50
