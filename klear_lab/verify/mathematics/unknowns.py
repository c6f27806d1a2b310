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
# These take a name back, also where any other word may stand: behind "number of" and in an index.
DENIALS = frozenset(
    listed(
        "not no none nothing never neither nor or either but except without if unless other else wrong false "
        "incorrect maybe perhaps possibly probably approx approximately about around roughly almost nearly near "
        "least most less more than over under plus minus times squared cubed half twice double"
    )
)


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

    |x| isn't one: x may have either of two values. |AB| is a length, and |z| that of a complex number.
    """
    if side.head == "text":
        return names_quantity(side.parts[0])
    if side.head == "call" and side.parts[0] == "abs" and side.parts[1].head == "name":
        return not re.match(r"[a-y]('|_|$)", side.parts[1].parts[0])
    if side.head != "name":
        return True
    base, *indices = side.parts[0].replace("'", "").split("_")
    known = is_letter(base) or base in LETTERS or " " in base or names_quantity(base)
    return known and DENIALS.isdisjoint(index.lower() for index in indices)


def names_quantity(said: str) -> bool:
    """Whether words name a quantity: "the number of ways", "area of ABC", "so x"; not "square of the area"."""
    words = re.sub(r"[,:]", " ", said).split()
    at = next((i for i, word in enumerate(words) if word.lower() in ("of", "in", "for")), len(words))
    head, rest = words[:at], words[at:]
    if any(word.lower().removesuffix("s") in QUANTITIES for word in head):
        return all(map(is_known, head)) and all(word.isalpha() and word.lower() not in DENIALS for word in rest)
    return bool(words) and is_letter(words[-1]) and CONCLUSIONS.issuperset(word.lower() for word in words[:-1])


def is_known(word: str) -> bool:
    """Whether a word may stand in the name of a quantity, also before "of"."""
    lower = word.lower()
    if lower in BESIDE_QUANTITIES or lower in CONCLUSIONS or lower.removesuffix("s") in QUANTITIES:
        return True
    return is_letter(word) or unit_name(word) is not None or re.fullmatch(r"[A-Z][a-z]+'s", word) is not None


def is_letter(word: str) -> bool:
    """Whether a word may be a variable, or points side by side (ABC)."""
    return LETTER.fullmatch(word) is not None and word.lower() not in DENIALS
