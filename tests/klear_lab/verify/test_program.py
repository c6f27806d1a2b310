"""The program of an answer: fences of every kind, and what looks like a fence inside of a program."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.verify.program import find_program

FENCES = {
    "plain": "```python\nprint(1)\n```",
    "the last one": "Here:\n```python\nprint(2)\n```\nBetter:\n```python\nprint(1)\n```\nDone.",
    "python3": "```Python3\nprint(1)\n```",
    "py": "```py \nprint(1)\n```",
    "a space before": "``` python\nprint(1)\n```",
    "spaces around": "```  python  \nprint(1)\n```  ",
    "a title": '```python title="a.py"\nprint(1)\n```',
    "a class": "```{.python .numberLines}\nprint(1)\n```",
    "longer": "`````python\nprint(1)\n`````",
    "closed by a longer one": "```python\nprint(1)\n`````",
    "tildes": "~~~python\nprint(1)\n~~~",
    "more tildes": "~~~~ python\nprint(1)\n~~~~~",
    "carriage returns": "text\r\n```python\r\nprint(1)\r\n```\r\n",
    "indented": "Like this:\n   ```python\n   print(1)\n   ```",
    "indented by a tab": "\t```python\n\tprint(1)\n\t```",
    "indented without its program": "   ```python\nprint(1)\n   ```",
    "a program indented alone": "```python\n    print(1)\n```",
    "in a list": "1. Like this:\n\n   ```python\n   print(1)\n   ```\n2. Done.",
    "an item of a list": "- ```python\n  print(1)\n  ```",
    "an item of a numbered list": "1) ```python\n   print(1)\n   ```",
    "quoted": "> ```python\n> print(1)\n> ```",
    "words after its end": "```python\nprint(1)\n```<|im_end|>",
    "after one that was left open": "```python\nprint(2)\n\nNo, better:\n```python\nprint(1)\n```",
    "before one that was left open": "```python\nprint(1)\n```\n```python\nprint(2)",
    "after output": "```\n2\n```\n```python\nprint(1)\n```\n```\n1\n```",
    "after ticks in a text": "``` opens code.\n```python\nprint(1)\n```",
}


@pytest.mark.parametrize("name", FENCES)
def test_the_program_is_found_in_a_fence(name):
    assert find_program(FENCES[name]).strip() == "print(1)"
    ast.parse(find_program(FENCES[name]))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "print(1)",
        "```python\nprint(1)",
        "```\nprint(1)\n```",
        "```json\n{}\n```",
        "```pycon\n>>> 1\n```",
        "```python-repl\n>>> 1\n```",
        "```pythonic\n1\n```",
        "```python print(1)```",
        "Use ```python\nprint(1)\n```",
        "```python\nprint(1)\n~~~",
        "````python\nprint(1)\n```",
        "``python\nprint(1)\n``",
    ],
)
def test_what_is_no_closed_python_block_is_no_program(answer):
    assert find_program(answer) is None


def test_an_empty_block_is_an_empty_program():
    assert find_program("```python\n```") == ""


PROGRAMS = {
    "a fence in a string of one line": "print('''```''')\n",
    "a fence that is a line of a string": "s = '''\n```\n'''\nprint(s)\n",
    "a block in a docstring": '"""Doc.\n\n```python\nf(1)\n```\n"""\nprint(1)\n',
    "a fence in a raw string": "x = r'''\\'''\n```\n'''\nprint(x)\n",
    "a fence in a formatted string": 'print(f"""\n```js\n{1}\n```""")\n',
    "a fence in the second string of a line": "print('''a''' '''b\n```\n''')\n",
    "quotes in a comment": "# it's '''fine\nprint(1)\n",
    "quotes in a string": "print(\"'''\", '\"\"\"', '\\'\\'\\'')\n",
    "an escaped quote": "print('a\\'''' '''b''')\n",
    "the other quotes inside": "print('''\n\"\"\"\n```\n\"\"\"\n''')\n",
    "tildes": "print('''\n~~~\n''')\n",
    "an apostrophe after code": "print(1)  # don't\nprint(2)\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("indent", ["", "   ", "\t"])
def test_a_fence_inside_of_a_string_ends_no_program(name, indent):
    program = PROGRAMS[name]
    if "'a\\''''" not in program:
        ast.parse(program)
    lines = "".join(f"{indent}{line}\n" for line in ["```python", *program.splitlines(), "```"])
    assert find_program(f"Here's it:\n{lines}That's all, isn't it?") == program


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\nx = '''\nprint(1)\n```\nend", "x = '''\nprint(1)\n"),
        ("```python\nx = '''\n```\nBetter:\n```python\nprint(1)\n```", "print(1)\n"),
        ("```python\nx = '''\n```\nBetter:\n```python\nprint('''a''')\n```", "print('''a''')\n"),
    ],
)
def test_a_string_without_end_is_none(answer, program):
    assert find_program(answer) == program


def test_a_program_loses_what_all_of_its_code_is_indented_by():
    answer = "  ```python\n  # first\n\n  if 1:\n      s = '''\nflush\n    in\n  '''\n# last\n  ```"
    assert find_program(answer) == "# first\n\nif 1:\n    s = '''\nflush\n  in\n'''\n# last\n"


def test_a_quoted_program_loses_its_marks():
    answer = "> ```python\n> if 1 > 0:\n>     print(1)\n>\n> ```"
    assert find_program(answer) == "if 1 > 0:\n    print(1)\n\n"


@given(st.lists(st.sampled_from(["```", "```python", "'''", '"""', "\\", "#", " ", "x", "\n", "~~~py", "> "])))
def test_any_answer_has_a_program_or_none(parts):
    program = find_program("".join(parts))
    assert program is None or program == "" or program.endswith("\n")


@pytest.mark.parametrize(
    "answer",
    [
        "```python\n" * 50_000,
        "```python\nx='''\n```\n" * 20_000,
        "```python\n'''\n\\'''\n```\n" * 10_000,
        "```python\n'''\n```\n" + "```python\n\\'''\n```\n" * 10_000,
        "```python\n" + "'" * 1_000_001 + "\n```",
        "```python\n'''" + "\\" * 1_000_001 + "\n```",
        "-" * 300_000,
        "1." * 200_000,
        " " * 300_000,
        "```" + "a`" * 200_000,
    ],
    ids=lambda answer: repr(answer[:20]),
)
def test_long_answers_are_searched_in_time(answer):
    started = time.monotonic()
    find_program(answer)
    assert time.monotonic() - started < 5
