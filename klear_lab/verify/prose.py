"""The words around an answer: do they still claim it, or do they deny, hedge, compare or change it?

In the sentences below a box is BOXED, an equation RELATION and any other formula MATH, one character each.
"""

import re

BOXED, MATH, RELATION = "\ue000", "\ue001", "\ue002"

SENTENCE_END = re.compile(r"(?<=[.!?])[*_)\"']*\s+|\n\s*\n(?!\W*\ue000)")
# Anywhere in the sentence: words that take a claim back, or make it a guess.
DENIAL = re.compile(
    r"\b(?:wrong|incorrect\w*|untrue|doubt\w*|unsure|mistaken|guess\w*|maybe|perhaps|possibly|might|unlikely|neither"
    r"|nor|anything but|far from|pretend\w*|fake|may be|could be|would have been|should not|shouldn't)\b"
    r"|\b(?:not|n't|never|hardly|false)\s+(?:\w+\s+)?(?:true|right|correct|sure|certain|that|the case|the answer|"
    r"the solution|the result|the value|think|believe|claim|say|mean|equal)\b|\?|\bif\b.{0,80}\b(?:were|was|had)\b"
)
OF_ANOTHER = re.compile(r"\bof\W*$")
OF_ITSELF = re.compile(
    r"\b(?:total|value|answer|result|sum|maximum|minimum|area|volume|length|probability|number|count|product|distance"
    r"|radius|perimeter|score|cost|price|set|root|solution)s? of\W*$"
)
ANOTHER = re.compile(
    rf"\b(?:answer|solution|result)\b[^.]{{0,20}}?(?:\bis\b|\bbe\b|:|=)\s*[-$*(]*\s*[\d{MATH}]"
    r"|\bbut it(?:'s| is)\b|\b(?:answer|so|thus|hence|therefore|namely|making|giving)\W*\d"
)
RELATIVE_NOT = re.compile(r"\b(?:that|which|who)\s+(?:are|is|do|does|have|has|can|were)(?:\s*not|n't)\b")
NEGATION = re.compile(r"\b(?:not|never|cannot|no|hardly|without|false|nothing)\b|n't\b")
ALTERNATIVE = re.compile(r"\b(?:or|either|besides)\b")
COMPARISON = re.compile(
    r"\bthan\b|\bat (?:least|most)\b|\bup to\b|\b(?:about|approximately|around|roughly|nearly|almost|over|under"
    r"|above|below|beyond|between|exceed\w*|minus|negative|plus|times|half|twice|double|except|but|until|within|versus|vs"
    r"|percent|(?:divided|multiplied|increased|bounded|raised) (?:by|to)|near|close to|unequal|if"
    r"|unless|whether|thousand|million|billion|hundred|dozen"
    r"|less|more|fewer|greater|smaller|larger|bigger|differs? from|different from)\W*$"
)
SIBLING_BEFORE = re.compile(
    rf"(?:{MATH}|\d[\d.,/]*)\s*(?:,|;|/|&|\||,?\s*(?:and|or|to|through))\s*$"
    rf"|(?:[{MATH}{RELATION}]|\d[)\]}}%]*)\s*$"
)
CHANGE_BEFORE = re.compile(r"[-+/^<>%~±\u00d7÷]\s*$")
CHANGE_AFTER = re.compile(rf"^[\s*_]*(?:[-+=<>^/%~±\u00d7÷·|&:\d{MATH}]|\\)")
SIBLING_AFTER = re.compile(rf"^[\s*_]*(?:,|;|,?\s*(?:and|to|through))\s*(?:[-+$\d{MATH}{RELATION}])")
RETRACTION_AFTER = re.compile(
    r"\b(?:not|never|no|false|or|but|thousand|million|billion|trillion|hundred|dozen|percent|too|off|minus|plus|times"
    r"|squared|cubed|factorial|less|more|higher|lower|greater|smaller|larger|bigger|approximately|roughly|instead"
    r"|actually|half|twice|rejected|excluded|mod|modulo|impossible|short|bound|than|either)\b|n't\b"
)
WHOLE_CLAUSE = re.compile(r"\b(?:is|are|equals?|gives?|get|have|obtain|find|becomes)\b")
REASON = re.compile(r"\b(?:since|because|where)\b")
RETRACTION_LATER = re.compile(
    r"\b(?:wrong|incorrect|mistake|scratch that|correction|actually|wait|sorry|kidding|joking|ignore|disregard|"
    r"second thought|or maybe|rather|instead|retract)\b|\bnot the (?:\w+ )?(?:answer|solution|result)\b|^\W*no\b"
    r"|\b(?:that|this|it|answer)(?:'s| is| was)? (?:not|isn't|false)\b|\b(?:isn't|wasn't)\b"
)
WARNING_BEFORE = re.compile(
    r"\b(?:wrong|incorrect|not the (?:\w+ )?answer|false)\b.{0,20}$|\bfollowing\b.{0,80}\b(?:not|wrong)\b"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in lower case and on one line each."""
    return [" ".join(part.lower().split()) for part in SENTENCE_END.split(text) if part.strip()]


def is_claimed(text: str) -> bool:
    """Whether every box of a text is given as an answer, and none is taken back."""
    parts = sentences(text)
    with_box = [i for i, part in enumerate(parts) if BOXED in part]
    if not with_box:
        return False
    if with_box[0] and WARNING_BEFORE.search(parts[with_box[0] - 1]):
        return False
    if any(RETRACTION_LATER.search(part) or ANOTHER.search(part) for part in parts[with_box[-1] + 1 :]):
        return False
    return all(claims_its_boxes(parts[i]) for i in with_box)


def claims_its_boxes(sentence: str) -> bool:
    """Whether a sentence claims what it boxes."""
    if DENIAL.search(sentence):
        return False
    before, *between, after = sentence.split(BOXED)
    return claims_before(before) and claims_after(after) and all(map(joins_boxes, between))


def claims_before(words: str) -> bool:
    """Whether the words before a box lead to it."""
    words = RELATIVE_NOT.sub("that", words)
    *_, clause = re.split(r"[,;]", words)
    last = (clause if WHOLE_CLAUSE.search(clause) else words).split()
    if NEGATION.search(" ".join(last[-5:])) or ALTERNATIVE.search(" ".join(last[-3:])):
        return False
    if re.search(r"(?:^|[,;])\s*or\b[^,;]*$", words) or COMPARISON.search(" ".join(last[-3:])):
        return False
    if CHANGE_BEFORE.search(words) or (OF_ANOTHER.search(words) and not OF_ITSELF.search(words)):
        return False
    return not SIBLING_BEFORE.search(words)


def claims_after(words: str) -> bool:
    """Whether the words behind a box leave it as it is."""
    if CHANGE_AFTER.search(words) or SIBLING_AFTER.search(words):
        return False
    if ANOTHER.search(words):
        return False
    return not RETRACTION_AFTER.search(REASON.split(words)[0])


def joins_boxes(words: str) -> bool:
    """Whether the words between two boxes list both, or say something of each."""
    words = words.strip()
    if re.fullmatch(r"[\s,;*_]*(?:and|or)?[\s*_]*", words):
        return True
    first, _, second = words.rpartition(",")
    return claims_after(first or words) and claims_before(second or words)
