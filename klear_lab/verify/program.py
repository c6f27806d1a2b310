"""The program of an answer: its last closed python block, however its fence is written.

A fence is three or more backticks or tildes and a word for Python, with or without a space between. It may be
indented, quoted or an item of a list; what all of its code is indented by, the program loses. A fence as long
closes it that isn't inside of one of the program's strings: programs print Markdown too.
"""

import re
from os.path import commonprefix

BEFORE = r"[ \t]*(?:(?:>|[-*+]|[0-9]{1,9}[.)])[ \t]*)*"  # of quotes and lists
OPENING = re.compile(rf"(?P<before>{BEFORE})(?P<fence>`{{3,}}(?!.*`)|~{{3,}})[ \t]*\{{?\.?(?P<rest>.*)", re.DOTALL)
PYTHON = re.compile(r"(?:python(?:3[0-9.]*)?|py3?)(?:[\s{},:=]|$)", re.IGNORECASE)
CLOSING = re.compile(r"[ \t>]*(`{3,}|~{3,})")
QUOTED = re.compile(r"[ \t]*>[ \t]?")
# What isn't inside of a string of several lines: where one begins, comments, and strings of one line.
OUTSIDE = re.compile(r"""'''|\"\"\"|\#.*|'(?:\\.|[^'\\])*'?|"(?:\\.|[^"\\])*"?""", re.DOTALL)
UNTIL = {quotes: re.compile(rf"(?:\\.|[^\\])*?{quotes}", re.DOTALL) for quotes in ("'''", '"""')}


def find_program(answer: str) -> str | None:
    """The last closed python block, None where there is none."""
    lines = answer.split("\n")
    program, at = None, 0
    without_end: set[tuple[int, str, str]] = set()
    while at < len(lines):
        opened = OPENING.match(lines[at])
        at += 1
        if opened is None or not PYTHON.match(opened["rest"]):
            continue
        end = find_end(lines, at, opened["fence"], without_end)
        if end is not None:
            program, at = block_content(lines[at:end], opened["before"]), end
    return program


def find_end(lines: list[str], start: int, fence: str, without_end: set[tuple[int, str, str]]) -> int | None:
    """The line that closes a block which begins at `start`, None where another one opens first, or none does.

    Where the program's strings leave none to close it, they aren't strings, and the first fence at all closes it.
    `without_end` notes from where none was found, so that no text takes longer than its lines are many.
    """
    string, in_string, seen = "", None, []
    for at in range(start, len(lines)):
        if (at, string, fence) in without_end:
            break
        seen.append((at, string, fence))
        line = lines[at]
        closing = CLOSING.match(line)
        if closing and not string and (opened := OPENING.match(line)) and PYTHON.match(opened["rest"]):
            return None
        if closing and closing[1].startswith(fence):
            if not string:
                return at
            in_string = at if in_string is None else in_string
        string = string_after(line, string)
    without_end.update(seen)
    return in_string


def string_after(line: str, string: str) -> str:
    """The quotes of the string of several lines that is open after a line; `string`: before it, empty for none."""
    at = 0
    while found := (UNTIL[string].match(line, at) if string else OUTSIDE.search(line, at)):
        at = found.end()
        string = "" if string or found[0] not in UNTIL else found[0]
    return string


def block_content(lines: list[str], before: str) -> str:
    """The lines of a block as a program: without quotation marks, and what all of its code is indented by."""
    for _ in range(before.count(">")):
        lines = [line[found.end() :] if (found := QUOTED.match(line)) else line for line in lines]
    indents, string = [], ""
    for line in lines:
        code = line.lstrip()
        if code and not string and not code.startswith("#"):
            indents.append(line[: len(line) - len(code)])
        string = string_after(line, string)
    indent = commonprefix(indents)  # noqa: RUF071 - of characters is what it is for here
    return "".join(line.removeprefix(indent) + "\n" for line in lines)
