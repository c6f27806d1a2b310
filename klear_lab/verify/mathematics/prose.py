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
    rf"\b(?:answer|solution|result|(?:correct|right|actual|true) value)\b[^.]{{0,20}}?(?:\bis\b|\bbe\b|:|=)"
    rf"\s*[-$*(]*\s*[\d{MATH}]"
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
    r"|less|more|fewer|greater|smaller|larger|bigger|differs? from|different from"
    r"|let's say|would answer|log|ln|sin|cos|tan|mod|excluding|suppose|assume|some say|mistake is"
    r"|(?:square|cube|fourth|nth) roots? of)\W*$"
)
SIBLING_BEFORE = re.compile(
    rf"(?:{MATH}|\d[\d.,/]*)\s*(?:,|;|/|&|\||,?\s*(?:and|or|to|through))\s*$"
    rf"|(?:[{MATH}{RELATION}]|\d[)\]}}%]*)\s*$"
)
CHANGE_BEFORE = re.compile(r"[-+/^<>%~±\u00d7÷]\s*$")
CHANGE_AFTER = re.compile(rf"^[\s*_]*(?:[-+=<>^/%~±\u00d7÷·|&:\d{MATH}]|\\)")
SIBLING_AFTER = re.compile(rf"^[\s*_]*(?:,|;|,?\s*(?:and|to|through))\s*(?:[-+$\d{MATH}{RELATION}])")
# A later value for other cases, or beside the first: "42 if n is even, 43 if n is odd".
OTHER_CASE = re.compile(
    rf"(?:,|;|\band\b)[\s*$(]*-?[\d{MATH}]\S*\s*(?:if|when|for|otherwise)\b|\b(?:else|otherwise|alternatively)\b"
    r"|\b(?:as well as|along with|together with|and also|vs|versus|and others|among others|and so on|etc)\b"
    rf"|^\W*(?:or|edit|final\w*|hmm|unless)\b[^.]*[\d{MATH}]|^[\s*$(]*-?[\d{MATH}][\d.,/]*[\s*$).]*$"
    r"|\bin which case\b|\b(?:other|another) candidate\b|\bmay (?:well )?be\b|\balso possible\b|\breflection\b"
)
RETRACTION_AFTER = re.compile(
    r"^\W*(?:divided|halved|doubled|increased|decreased|halves|thirds|quarters|fifths|tenths|hundredths"
    r"|(?:in )?base|remainder|to the power|per cent|over|at (?:most|least)|fails)\b"
    r"|\b(?:probably|trap|one (?:of|option|possibility)|an approximation|approx)\b"
    r"|\b(?:not|never|no|false|or|but|thousand|million|billion|trillion|hundred|dozen|percent|too|off|minus|plus|times"
    r"|squared|cubed|factorial|less|more|higher|lower|greater|smaller|larger|bigger|approximately|roughly|instead"
    r"|actually|half|twice|rejected|excluded|mod|modulo|impossible|short|bound|than|either)\b|n't\b"
)
WHOLE_CLAUSE = re.compile(r"\b(?:is|are|equals?|gives?|get|have|obtain|find|becomes)\b")
REASON = re.compile(
    r"\b(?:since|because|where|who|divisible|so that|such that|for which|in which|with no two"
    r"|that (?:are|do|does|have|can))\b"
)
# "42 more apples than", "42 years older than": a difference, which is what the box holds.
DIFFERENCE = re.compile(
    r"^[\s$]*(?:(?:more|fewer|less) (?!than\b)\w+(?: \w+)?|(?:years?|days?|weeks?|months?|hours?|minutes?|seconds?"
    r"|inch(?:es)?|feet|meters?|metres?|cm|km|m|miles?|pounds?|kg|dollars?|cents?|points?|degrees?) "
    r"(?:older|younger|taller|shorter|longer|heavier|lighter|faster|later|earlier|higher|lower|more|less)) than\b"
)
VERB = re.compile(r"\b(?:is|are|equals?)\b(?!\s*(?:not|n't|never)\b)")
RETRACTION_LATER = re.compile(
    r"\b(?:wrong|incorrect|mistake|scratch that|correction|actually|wait|sorry|kidding|joking|ignore|disregard|"
    r"second thought|or maybe|rather|instead|retract)\b|\bnot the (?:\w+ )?(?:answer|solution|result)\b"
    r"|^\W*(?:no|not)\b"
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
    for part in parts[with_box[-1] + 1 :]:
        if RETRACTION_LATER.search(part) or ANOTHER.search(part) or OTHER_CASE.search(part):
            return False
        if len(part.split()) <= 3 and any(p.search(part) for p in (DENIAL, NEGATION, ALTERNATIVE, COMPARISON)):
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
    if NEGATION.search(" ".join(last[-5:])):
        return False
    # What "the number of primes less than 200 is" compares isn't what it claims.
    since_verb = VERB.split(" ".join(last[-3:]))[-1]
    if ALTERNATIVE.search(since_verb) or COMPARISON.search(since_verb):
        return False
    if re.search(r"(?:^|[,;])\s*or\b[^,;]*$", words):
        return False
    if CHANGE_BEFORE.search(words) or (OF_ANOTHER.search(words) and not OF_ITSELF.search(words)):
        return False
    return not SIBLING_BEFORE.search(words)


def claims_after(words: str) -> bool:
    """Whether the words behind a box leave it as it is."""
    if CHANGE_AFTER.search(words) or SIBLING_AFTER.search(words):
        return False
    if ANOTHER.search(words) or OTHER_CASE.search(words):
        return False
    return not RETRACTION_AFTER.search(REASON.split(DIFFERENCE.sub("", words))[0])


def joins_boxes(words: str) -> bool:
    """Whether the words between two boxes list both, or say something of each."""
    words = words.strip()
    if re.fullmatch(r"[\s,;*_]*(?:and|or)?[\s*_]*", words):
        return True
    first, _, second = words.rpartition(",")
    return claims_after(first or words) and claims_before(second or words)
