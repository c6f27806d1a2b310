r"""The 9-gram filter: finds prompts that share a word n-gram with a benchmark prompt (arXiv 2508.07629).

It cuts a text into words like this:
1. NFKC, then casefold.
2. LaTeX commands that only lay out (\left, \text, \frac, \begin{...}: `LAYOUT`) go; others lose their backslash,
   so that \sin is the word sin. `$`, braces, brackets and all other marks separate words.
3. A word is a maximal run of letters or one of digits: "2x_1" is 2, x, 1, and $900$ is 900.
4. A +, - or * between two numbers belongs to the number after it: "7 + 5*3-2=" is 7, +5, *3, -2, spaced or not,
   and so is $7+5\times3-2$. Marks anywhere else are notation or punctuation ("well-known", "**bold**", "x-y").

Why rule 4. Without signs, sums and products of the same numbers would be one prompt, and prompts shorter than n
words, compared whole, would collide by chance: there are only 1000 chains of three digits. With signs as words
of their own, an n-gram of a chain would span 5 digits instead of 9: one of 8 million rather than 10**9 * 3**8,
few enough that long chains would collide by chance too. A slash is punctuation, so that 1/2 is \frac{1}{2}.

In languages written without spaces a run of letters is one word, so there it finds only near-equal prompts.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

LAYOUT = re.compile(
    r"\\(?:(?:begin|end)\{[a-z]*\*?\}"
    r"|(?:left|right|[dt]?frac|text[a-z]*|math[a-z]*|operatorname|bigg?[lr]?|displaystyle|q?quad)(?![a-z]))"
)
TIMES = re.compile(r"\\(?:times|cdot)(?![a-z])")
SIGNS = str.maketrans(dict.fromkeys("\xd7\xb7\u22c5", "*") | dict.fromkeys("\u2212\u2013", "-"))  # times, minus
MARKUP = str.maketrans(dict.fromkeys("\\${}", " "))
AROUND_SIGN = re.compile(r"(?<=\d)\s*([-+*])\s*(?=\d)")
WORD = re.compile(r"(?<=\d)[-+*]\d+|\d+|[^\W\d_]+")


def shares_ngram(prompts: Iterable[str], benchmark_prompts: Iterable[str], n: int = 9) -> NDArray[np.bool_]:
    """Returns True where a prompt has n words in a row that a benchmark prompt has too; shape (prompts,).

    A prompt of fewer than n words counts if it equals a whole benchmark prompt, word for word; one without words
    never does. Memory holds the benchmarks' n-grams and one prompt at a time.

    Raises `ValueError` for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")
    benchmark = {ngram for prompt in benchmark_prompts for ngram in ngrams(words(prompt), n)}
    return np.fromiter((not benchmark.isdisjoint(ngrams(words(p), n)) for p in prompts), dtype=np.bool_)


def ngrams(of_words: list[str], n: int) -> Iterable[tuple[str, ...]]:
    """Returns every n words in a row; all words as one tuple if they are fewer, and nothing for no words."""
    if 0 < len(of_words) < n:
        return [tuple(of_words)]
    return zip(*(islice(of_words, start, None) for start in range(n)), strict=False)


def words(text: str) -> list[str]:
    """Cuts a text into its words, in order, by the rules at the top of this file."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(SIGNS)
    text = text.casefold()
    if "\\" in text:
        text = TIMES.sub("*", LAYOUT.sub(" ", text))
    return WORD.findall(AROUND_SIGN.sub(r"\1", text.translate(MARKUP)))
