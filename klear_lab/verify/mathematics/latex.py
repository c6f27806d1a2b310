"""LaTeX as tokens: every character of a text becomes part of one token, or is white space or mere style.

A style (bold, size, spacing) changes how an expression looks and never what it says; signs.py has the complete
list. Characters that stand for a command (½, √, ≤, a full-width digit) are rewritten to it first.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from klear_lab.verify.mathematics.signs import (
    LOWERED,
    MARK_COMMANDS,
    RAISED,
    ROMANS,
    SAME_COMMAND,
    SIGNS,
    STYLES,
    TEXTS,
    TWO_CHARACTERS,
)


class Token(NamedTuple):
    """`kind`: number, grouped, repeating, letters, command, environment, mark (a character), text or roman.

    `spaced` tells whether white space stands before it. commas.py decides what "grouped" (1,000 or 1,2) is.
    """

    kind: str
    text: str
    spaced: bool = False


JOINER = r"(?:\{,\}|\\,|\\;|\\ | |~)"  # of the digits of one number; a bare comma may also part two
THOUSANDS = rf"[1-9]\d{{0,2}}(?:{JOINER}\d{{3}})+(?!\d)(?:\.\d+)?"
GROUPED = (
    rf"\d+(?:,\d+)+(?:\.\d+)?(?!\d|[eE][+-]?\d|{JOINER}\d{{3}}(?!\d)|\.?\d*\s*\\(?:overline|bar|dot)(?![A-Za-z]))"
)
ROW_GAP = re.compile(r"(\\\\)\*?\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in|mu)\s*\]")
TOKEN = re.compile(
    rf"(?P<space>[\s~]+|\\ )|(?P<scientific>(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+(?![\d.A-Za-z]))"
    rf"|(?P<thousands>{THOUSANDS})|(?P<grouped>{GROUPED})"
    r"|(?P<repeating>\d*\.\d*\s*\\(?:overline|bar|dot)(?:\s*\d|\s*\{\s*\d+\s*\})(?:\d*\\dot(?:\s*\d|\s*\{\d\}))?)"
    r"|(?P<number>\d+\.\d+|(?<!\d)\.\d+|\d+)|(?P<letters>[A-Za-z]+)"
    r"|(?P<environment>\\(?:begin|end)\s*\{[A-Za-z]+\*?\}(?:\{[clr| ]*\})?)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))|(?P<mark><=|>=|!=|.)",
    re.DOTALL,
)


def ascii_digits(text: str) -> str:
    """Digits of other scripts as 0 to 9; superscripts and the like aren't digits, 4² isn't 42."""
    return "".join(str(unicodedata.decimal(c)) if not c.isascii() and c.isdecimal() else c for c in text)


def rewrite_characters(text: str) -> str:
    """Rewrites characters that stand for a sign or a command of LaTeX to that sign or command."""
    text = "".join(chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c for c in ascii_digits(text))
    text = re.sub(r"(?<=[\d,}])\s*\\!\s*(?=[\d,{])", "", text)  # 10,\!080 is 10,080
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\\s", r"\1~", text)
    text = re.sub(f"[{''.join(RAISED)}]+", lambda m: "^{" + "".join(RAISED[c] for c in m[0]) + "}", text)
    text = re.sub(f"[{''.join(LOWERED)}]+", lambda m: "_{" + "".join(LOWERED[c] for c in m[0]) + "}", text)
    return "".join(rewrite_character(c) for c in text)


def rewrite_character(character: str) -> str:
    """One character; a vulgar fraction (½) becomes \\frac{1}{2}, and what has no rewriting stays."""
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFKC", character).split("\u2044")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
    return SIGNS.get(character, character)


def closing_brace(text: str, start: int) -> int:
    """Where the group ends whose content begins at `start`; -1 where it never does."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
        at += 1
    return -1


def tokenise(text: str) -> list[Token]:
    """The tokens of a text after `rewrite_characters`, styles left out; nothing else is ever dropped."""
    tokens: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match is not None and match.lastgroup is not None
        kind, found, at = match.lastgroup, match[0], match.end()
        if kind == "space":
            spaced = True
            continue
        name = found[1:] if kind == "command" else found
        if kind == "command" and name in STYLES:
            spaced = True
            if name in ("left", "right") and text[at : at + 1] == ".":
                at += 1
            continue
        if kind == "command" and name in (*TEXTS, *ROMANS) and (group := re.compile(r"\*?\s*\{").match(text, at)):
            end = closing_brace(text, group.end())
            if end >= 0:
                tokens.append(Token("roman" if name in ROMANS else "text", text[group.end() : end], spaced))
                at, spaced = end + 1, False
                continue
        if (
            kind == "command"
            and name == "mathrm"
            and (letter := re.compile(r"\s*([A-Za-z])(?![A-Za-z])").match(text, at))
        ):
            tokens.append(Token("roman", letter[1], spaced))
            at, spaced = letter.end(), False
            continue
        tokens.append(make_token(kind, name, spaced))
        spaced = False
    return tokens


def make_token(kind: str, name: str, spaced: bool) -> Token:
    """One token, with one spelling for each of its synonyms."""
    if kind == "command":
        if name in MARK_COMMANDS:
            return Token("mark", MARK_COMMANDS[name], spaced)
        return Token(kind, SAME_COMMAND.get(name, name), spaced)
    if kind == "thousands":
        whole, point, rest = name.partition(".")
        return Token("number", re.sub(r"\D", "", whole) + point + rest, spaced)
    if kind == "environment":
        return Token(kind, " ".join(re.findall(r"[A-Za-z]+", name)[:2]), spaced)
    if name in TWO_CHARACTERS:
        return Token("command", TWO_CHARACTERS[name], spaced)
    return Token({"scientific": "number"}.get(kind, kind), name, spaced)


def plain_text(tokens: Sequence[Token]) -> str:
    """What tokens say, in a spelling that doesn't depend on spacing, style or needless braces.

    Words are compared without regard to case, names and single letters with it.
    """
    words = []
    for token in tokens:
        said = " ".join(token.text.split()) if token.kind in ("text", "roman") else token.text
        if token.kind == "command":
            said = "\\" + said
        words += [said] if token.kind not in ("text", "roman", "letters") else said.split()
    said = re.sub(r"(?<![\\^_]) \{ (\S+) \}", r" \1", " " + " ".join(words))
    said = re.sub(r"([\^_]) \{ (\S+) \}", r"\1 \2", said)
    shortest = (
        1 if re.search(r"(?<![\\A-Za-z])[A-Za-z][a-z]{2,}", said) else 2
    )  # "No" is a word beside a longer one
    said = re.sub(rf"(?<![\\A-Za-z])[A-Za-z][a-z]{{{shortest},}}", lambda m: m[0].lower(), said).strip()
    return re.sub(r"(?<![\s.]) ?\.$", "", said)
