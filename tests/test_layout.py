"""The tests' own order: no test file imports another, and their folders are the packages' rooms."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))
ROOMS = sorted({file.parent for file in TESTS.glob("*/**/test_*.py")})


def imported(file):
    """Names of all modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(alias.name for alias in node.names))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_file_is_imported(file):
    names = [part for name in imported(file) for part in name.split(".")]
    assert not [name for name in names if name.startswith("test_")]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(TESTS)))
def test_a_room_of_tests_is_a_room_of_the_package(room):
    assert any((TESTS.parent / room.relative_to(TESTS)).glob("*.py"))


def test_there_is_something_to_check():
    assert len(FILES) > 60 and len(ROOMS) > 10
