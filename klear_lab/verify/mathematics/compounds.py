"""Quantities in two pieces: a box of 3 before "hours and 20 minutes" isn't the answer 3 hours."""

import re

from klear_lab.verify.mathematics.prose import BOXED, MATH
from klear_lab.verify.mathematics.signs import listed
from klear_lab.verify.mathematics.units import unit_name

# Units that add up to one quantity, a line for each kind.
KINDS = [
    frozenset(listed(line))
    for line in (
        "ms s min h day week month year",
        "nm mm cm dm m km inch ft yd mi",
        "mg g kg t oz lb",
        "mL L gal",
        "dollar cent",
        "degree min s",
    )
]
NUMBER = (
    rf"(?:[{MATH}$\d][\d.,/$]*|(?:it|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty"
    r"|thirty|forty|fifty)(?:-\w+)?\b)[\s*_-]*"
)
NEAR = 80  # characters on each side of a box that may belong to its quantity
AND = r"(?:\s*,?\s*and\s+|\s*,\s*|\s+)"
REST = re.compile(rf"{BOXED}[\s*_]*(?P<first>(?!and\b)[a-z]+)?[.*_]*{AND}{NUMBER}(?P<second>[a-z]+)", re.I)
START = re.compile(
    rf"(?<![\w.]){NUMBER}(?P<first>[a-z]+)\.?\s+(?:and\s+)?[*_]*{BOXED}[\s*_]*(?P<second>[a-z]+)", re.I
)
FRACTION = re.compile(
    rf"{BOXED}[\s*_]*(?:[a-z]+\s+)?and\s+(?:an?|one|two|three)[\s-](?:quarter|third|fifth|half)", re.I
)


def is_piece(claims: str) -> bool:
    """Whether any box of a text is only a piece of a quantity."""
    around = [claims[max(0, box.start() - NEAR) : box.end() + NEAR] for box in re.finditer(BOXED, claims)]
    if any(map(FRACTION.search, around)):
        return True
    pairs = [
        match.group("first", "second")
        for part in (REST, START)
        for text in around
        for match in part.finditer(text)
    ]
    return any(add_up(first, second) for first, second in pairs)


def add_up(first: str | None, second: str) -> bool:
    """Whether two words are different units of one kind; the first may stand in the box, unseen."""
    units = {unit_name(word) for word in (first, second) if word}
    return any(units <= kind and (len(units) == 2 or first is None) for kind in KINDS)
