"""Words that may stand behind a number: units, which an answer may have beyond the ground truth, and factors.

What isn't in these tables is no unit: "42 is wrong" isn't 42.
"""

import re
from fractions import Fraction

from klear_lab.verify.mathematics.signs import listed, table

Unit = tuple[tuple[str, int], ...]  # each base unit with its exponent, in alphabetical order

FACTORS = {
    "hundred": Fraction(10**2),
    "thousand": Fraction(10**3),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
    "dozen": Fraction(12),
    "percent": Fraction(1, 100),
    "pct": Fraction(1, 100),
    "percentage": Fraction(1, 100),
}

# A line for each few units: the name, and after a colon its other spellings.
UNITS = """
m: meter metre, cm: centimeter centimetre, mm: millimeter millimetre, km: kilometer kilometre, dm: decimeter
nm: nanometer nanometre, inch: in, ft: foot feet, yd: yard, mi: mile, g: gram gm gramme, kg: kilogram kilo
mg: milligram, lb: pound lbs, oz: ounce, t: ton tonne, s: second sec, min: minute, h: hour hr hrs, day:, week:
month:, year: yr, ms: millisecond, L: liter litre l, mL: milliliter millilitre ml, gal: gallon, N: newton, J: joule
kJ: kilojoule, W: watt, kW: kilowatt, V: volt, A: ampere amp, K: kelvin, Hz: hertz, Pa: pascal, kPa: kilopascal
mol: mole, ohm:, C: coulomb, F:, eV:, cal: calorie, acre:, hectare: ha, rad: radian, degree: deg, mph:, kmh: kph
dollar: usd buck, cent: ¢, euro: eur, rupee: rs, yen:, yuan:, sterling:
"""
# Things that are counted: "42 ways" is 42.
COUNTED = listed(
    "unit point digit number integer student people person child boy girl man woman way solution pair "
    "value element term step side edge vertex face square triangle circle coin apple orange ball "
    "marble book card page ticket toy tile block cube box bag bottle cup glass tree flower animal dog "
    "cat bird fish horse cow sheep chicken egg car bus train team game match player worker machine "
    "question problem letter word path route arrangement combination permutation subset set function "
    "polynomial root zero factor divisor multiple prime pupil member friend group piece slice cookie "
    "candy sweet pencil pen stamp house room chair table line plane region part row column cell seat "
    "vote stop turn move roll toss revolution rotation quadruple triple tuple configuration outcome "
    "possibility choice"
)
SPELLINGS = {
    name.strip(): spellings
    for line in UNITS.strip().splitlines()
    for name, spellings in (unit.split(":") for unit in line.split(","))
} | dict.fromkeys(COUNTED, "")
PLURALS = table(
    "people person children child men man women woman inches inch boxes box vertices vertex matches "
    "match buses bus glasses glass possibilities possibility candies candy sheep sheep fish fish feet "
    "ft cents cent hertz Hz"
)
NAMES = {name: name for name in SPELLINGS} | {
    spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings.split()
}
CASED = {name for name in NAMES if len(name) < 3}  # short ones are told apart by case: N newtons, m metres
CURRENCIES = table(r"\$ dollar $ dollar € euro £ sterling ¥ yen ₹ rupee ¢ cent")
COMPOUNDS = {"mph": ("mi", "h"), "kmh": ("km", "h")}
FILLER = ("of", "arc", "such", "different", "distinct", "positive", "real", "ordered", "possible", "total")
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
EXPONENT = r"\^\s*\{?\s*-?\s*\d{1,3}\s*\}?"
WORDS = re.compile(rf"[A-Za-z]+|[$€£¥₹¢]|{EXPONENT}|\S")


def unit_name(word: str) -> str | None:
    """The base unit that a word names, in the singular or plural."""
    word = word if word in CASED else word.lower() if len(word) > 2 and word.lower() in NAMES else word
    if word in NAMES:
        return NAMES[word]
    word = word.lower() if len(word) > 3 else word
    if word in PLURALS:
        return PLURALS[word]
    for ending in ("s", "es"):
        stem = word.removesuffix(ending)
        if len(stem) > 2 and stem != word and stem in NAMES:
            return NAMES[stem]
    return None


def read_unit(phrase: str) -> Unit | None:
    """The unit that a phrase names: cm, square feet, m/s^2, kilometers per hour. None for any other phrase."""
    words = WORDS.findall(phrase.replace("\\$", "$").strip(" ."))
    exponents: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for word in words:
        if word in ("/", "per"):
            if power != 1 or word is words[-1]:
                return None
            sign, last = -1, ""
        elif last and re.fullmatch(EXPONENT, word):
            exponents[last] += sign * (int(re.sub(r"[^-\d]", "", word)) - 1)
            last = ""
        elif word.lower() in POWERS and (len(words) > 1 and word is not words[-1]):
            power = POWERS[word.lower()]
        elif word.lower() in FILLER and word is not words[-1]:
            continue
        elif (name := CURRENCIES.get(word) or unit_name(word)) is not None:
            exponents[name] = exponents.get(name, 0) + sign * power
            power, last = 1, name
        elif (word not in ("*", "·") or not last) and (word != "." or power == 1):
            return None
    for name, (above, below) in COMPOUNDS.items():
        count = exponents.pop(name, 0)
        for part, times in ((above, count), (below, -count)):
            if times:
                exponents[part] = exponents.get(part, 0) + times
    return tuple(sorted(exponents.items())) if exponents else None
