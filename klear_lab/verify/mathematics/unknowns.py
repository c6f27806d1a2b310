"""What stands beside "=" as the name of an unknown: a variable, or words such as "the number of ways".

Words that aren't in these tables name nothing: \\text{not } x = 42 isn't 42, nor is \\text{about} = 42.
"""

import re
from collections.abc import Sequence

from klear_lab.verify.mathematics.nodes import LETTERS, Node
from klear_lab.verify.mathematics.signs import listed
from klear_lab.verify.mathematics.units import unit_name
from klear_lab.verify.mathematics.values import KNOWN_CALLS

QUANTITIES = frozenset(
    listed(
        "answer result value total sum difference product quotient remainder ratio number count amount area "
        "volume length width height depth perimeter circumference radius diameter side hypotenuse altitude "
        "distance speed velocity acceleration time age rate price cost profit revenue income interest "
        "salary discount tax mean median mode average range variance probability percentage score degree "
        "slope intercept coefficient constant determinant rank order period frequency amplitude maximum "
        "minimum max min gcd lcm divisor measure angle weight mass temperature population money savings "
        "balance solution root expectation size cardinality dimension"
    )
)
BESIDE_QUANTITIES = frozenset(
    listed(
        "the a an our my of in for per each and to with between that this these those all final correct "
        "required desired new original initial largest smallest greatest least highest lowest biggest first "
        "last expected surface lateral arithmetic geometric common possible distinct positive remaining "
        "combined average total right"
    )
)
CONCLUSIONS = frozenset(listed("so thus hence therefore then finally"))
LETTER = re.compile(r"[A-Za-z]'*|[A-Z]{2,4}")
NO_INDEX = re.compile(r"not|wrong|false|or|no|never|approx.*|about|maybe", re.IGNORECASE)


def lone_name(side: Node) -> str | None:
    """How a side names an unknown and says nothing of it: n, x_1, f(2), |AB|, m + n; None where it doesn't."""
    if side.head == "name" or side.head == "text":
        return str(side.parts[0])
    if side.head == "call" and side.parts[0] not in KNOWN_CALLS:
        return str(side)
    if side.head == "call" and side.parts[0] == "abs" and side.parts[1].head == "name":
        return f"|{side.parts[1].parts[0]}|"
    if side.head == "sum" and len(set(side.parts)) == len(side.parts):
        names = [lone_name(part) if part.head == "name" else None for part in side.parts]
        return "+".join(sorted(n for n in names if n)) if all(names) else None
    return None


def strange_sides(items: Sequence[Node]) -> set[str]:
    """The sides of relations that no answer may have of its own, since they don't just name an unknown."""
    sides = [side for item in items if item.head == "relation" for side in item.parts[1]]
    return {str(side).lower() for side in sides if lone_name(side) is not None and not is_unknown(side)}


def is_unknown(side: Node) -> bool:
    """Whether a side names an unknown that an answer may name though the ground truth doesn't.

    |x| isn't one: it may have either of two values. |AB| is a length.
    """
    if side.head == "text":
        return names_quantity(side.parts[0])
    if side.head == "call" and side.parts[0] == "abs" and side.parts[1].head == "name":
        return not re.match(r"[a-z]('|_|$)", side.parts[1].parts[0])
    if side.head != "name":
        return True
    base, *indices = side.parts[0].replace("'", "").split("_")
    known = LETTER.fullmatch(base) or base in LETTERS or " " in base or names_quantity(base)
    return bool(known) and not any(map(NO_INDEX.fullmatch, indices))


def names_quantity(said: str) -> bool:
    """Whether words name a quantity: "the number of ways", "area of ABC", "so x"; not "square of the area"."""
    words = re.sub(r"[,:]", " ", said).split()
    lower = [word.lower() for word in words]
    head = lower[: lower.index("of")] if "of" in lower else lower
    if not QUANTITIES.intersection(word.removesuffix("s") for word in head):
        *before, last = words
        return LETTER.fullmatch(last) is not None and CONCLUSIONS.issuperset(word.lower() for word in before)
    return all(map(is_known, words))


def is_known(word: str) -> bool:
    """Whether a word may stand in the name of a quantity."""
    lower = word.lower()
    if lower in BESIDE_QUANTITIES or lower in CONCLUSIONS or lower.removesuffix("s") in QUANTITIES:
        return True
    return LETTER.fullmatch(word) is not None or unit_name(word) is not None
