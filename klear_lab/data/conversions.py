"""Conversions: each turns the value of a column in another format into a value in ours.

Each raises one of `CONVERSION_ERRORS` for a value that it can't read. `CONVERSIONS` names them for the `as` of a
column mapping (columns.py).
"""

import base64
import io
import json
import pickle
import pickletools
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from klear_lab.sandbox.cases import long_numbers
from klear_lab.verify.json_objects import read_json

MOST_TEST_BYTES = 1 << 30  # the most that the tests of one LiveCodeBench row may unpack to
CONVERSION_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, RecursionError),
    *(zlib.error, pickle.UnpicklingError),
)
SHARE_GPT_ROLES = {"human": "user", "gpt": "assistant"}
THOUGHT = re.compile(r"<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>", re.DOTALL)
SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)<\|end_of_solution\|>", re.DOTALL)
TRUTHS = {
    **dict.fromkeys(("true", "yes", "correct", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "incorrect", "0", "0.0"), False),
}


def text_of_number(value: Any) -> str:
    """Returns 42 and 42.0 as "42", and text as it is. Raises `TypeError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("neither text nor a number")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def turns(conversation: list[dict[str, str]]) -> list[dict[str, str]]:
    """Turns a conversation of {from, value} or {role, content} into messages; drops an empty system message."""
    named = [(t["from"], t["value"]) if "from" in t else (t["role"], t["content"]) for t in conversation]
    found = [{"role": SHARE_GPT_ROLES.get(who, who), "content": text} for who, text in named]
    return [turn for turn in found if turn["role"] != "system" or turn["content"].strip()]


def before_last_answer(conversation: list[dict[str, str]]) -> list[dict[str, str]]:
    """Returns the prompt of a conversation: all turns except the last, which is the assistant's answer.

    Raises `ValueError` where the assistant doesn't speak last.
    """
    found = turns(conversation)
    if not found or found[-1]["role"] != "assistant":
        raise ValueError("the last turn is not the assistant's")
    return found[:-1]


def last_answer(conversation: list[dict[str, str]]) -> str:
    """Returns the text of a conversation's last turn. Raises `ValueError` where that isn't the assistant's."""
    before_last_answer(conversation)
    return turns(conversation)[-1]["content"]


def thought_and_solution(parts: Sequence[str]) -> str:
    """Joins two columns to <think>reasoning</think>solution, whether or not the first has the tags already."""
    reasoning, solution = parts
    reasoning = reasoning.strip().removeprefix("<think>").removesuffix("</think>").strip()
    return f"<think>\n{reasoning}\n</think>\n\n{solution.strip()}"


def open_thoughts_tags(text: str) -> str:
    """Rewrites <|begin_of_thought|>...<|begin_of_solution|>... as <think>...</think>...

    OpenThoughts-114k and Sky-T1 write so. Raises `ValueError` where either part is missing or not closed.
    """
    thought, solution = THOUGHT.search(text), SOLUTION.search(text)
    if thought is None or solution is None:
        raise ValueError("a thought or a solution is not there, or not closed")
    return thought_and_solution([thought[1], solution[1]])


def truth(value: Any) -> bool | None:
    """Reads a boolean, 0 or 1, or a word (yes, true, correct and their opposites) as true or false.

    Null stays null. Raises `ValueError` for any other word.
    """
    if value is None:
        return None
    word = str(value).strip().lower()
    if word not in TRUTHS:
        raise ValueError(f"none of {', '.join(TRUTHS)}")
    return TRUTHS[word]


@long_numbers()  # outputs of APPS and TACO may be whole numbers of thousands of digits
def input_output_tests(content: str | dict[str, Any]) -> str:
    """Reads `input_output` of APPS and TACO as our tests.

    Our tests are JSON of `inputs` and `outputs`, and of `fn_name` where they call a function.
    """
    found = read_json(content) if isinstance(content, str) else content
    function = {"fn_name": found["fn_name"]} if found.get("fn_name") else {}
    tests = {"inputs": found["inputs"], "outputs": found["outputs"]}
    return json.dumps(tests | function, ensure_ascii=False)


def example_tests(examples: list[dict[str, str]]) -> str:
    """Reads `official_tests` and `examples` of Codeforces, lists of {input, output}, as our tests."""
    tests = {"inputs": [e["input"] for e in examples], "outputs": [e["output"] for e in examples]}
    return json.dumps(tests, ensure_ascii=False)


def live_code_bench_tests(parts: Sequence[Any]) -> str:
    """Reads LiveCodeBench's `public_test_cases`, `private_test_cases` and `metadata` as our tests.

    Their tolerance is 0: a program must print decimal fractions exactly.
    """
    public, private, metadata = parts
    cases = [*test_cases(public), *test_cases(private)]
    about = (read_json(metadata) if isinstance(metadata, str) else metadata) or {}
    function = {"fn_name": about["func_name"]} if about.get("func_name") else {}
    tests = {"inputs": [c["input"] for c in cases], "outputs": [c["output"] for c in cases], "tolerance": 0}
    return json.dumps(tests | function, ensure_ascii=False)


def test_cases(packed: Any) -> list[dict[str, str]]:
    """Unpacks a list of {input, output, testtype}, JSON of it, or base64 of zlib of a pickle of that JSON."""
    if not isinstance(packed, str):
        return list(packed)
    if packed.lstrip().startswith("["):
        return list(read_json(packed))
    found = plain_unpickle(unzip(base64.b64decode(packed, validate=True)))
    return list(read_json(found) if isinstance(found, str) else found)


def unzip(packed: bytes) -> bytes:
    """Unpacks what zlib packed. Raises `ValueError` for more than `MOST_TEST_BYTES`, zlib.error for nonsense."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, MOST_TEST_BYTES)
    if not unpacker.eof:
        raise ValueError(f"truncated, or more than {MOST_TEST_BYTES} bytes")
    return content


# Pickles of text, numbers, lists and dicts need no more. Any other opcode could run code or take all memory.
PLAIN_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "BINGET", "NONE", "NEWTRUE", "NEWFALSE"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "BINFLOAT"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}


class PlainUnpickler(pickle.Unpickler):
    """Unpickles plain data; it loads no class and no function."""

    def find_class(self, module: str, name: str) -> Any:
        """Always raises `pickle.UnpicklingError`."""
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def plain_unpickle(content: bytes) -> Any:
    """Loads a pickle of text, numbers, lists and dicts.

    Raises `pickle.UnpicklingError` or `ValueError` for any other pickle.
    """
    for opcode, _, _ in pickletools.genops(content):
        if opcode.name not in PLAIN_OPCODES:
            raise pickle.UnpicklingError(f"the pickle holds more than plain data ({opcode.name})")
    return PlainUnpickler(io.BytesIO(content)).load()


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "json": read_json,  # text -> the value that it writes
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "text": text_of_number,
    "truth": truth,
    "before_last_answer": before_last_answer,
    "last_answer": last_answer,
    "thought_and_solution": thought_and_solution,
    "open_thoughts_tags": open_thoughts_tags,
    "input_output_tests": input_output_tests,
    "example_tests": example_tests,
    "live_code_bench_tests": live_code_bench_tests,
}
