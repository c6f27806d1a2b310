"""The 9-gram filter: against all pairs of n-grams, and on planted overlaps."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.data.decontaminate import shares_ngram, words
from klear_lab.worlds.chain import sample_prompt

TEXTS = st.lists(st.lists(st.sampled_from(["a", "B", "7", "12", "b"]), max_size=8).map(" ".join), max_size=6)


def reference(prompts, benchmark_prompts, n):
    def shared(a, b):
        if min(len(a), len(b)) < n:
            return a == b != []
        return any(a[i : i + n] == b[j : j + n] for i in range(len(a) - n + 1) for j in range(len(b) - n + 1))

    cut = [[re.findall(r"\w+", text.lower()) for text in texts] for texts in (prompts, benchmark_prompts)]
    return [any(shared(a, b) for b in cut[1]) for a in cut[0]]


@given(TEXTS, TEXTS, st.integers(1, 5))
def test_equals_the_comparison_of_all_pairs(prompts, benchmark_prompts, n):
    found = shares_ngram(prompts, benchmark_prompts, n).tolist()
    assert found == reference(prompts, benchmark_prompts, n)


BENCHMARK = r"Every morning Aya goes for a walk of 9 kilometers at $s$ km/h, and drinks a café au lait of 900 ml."
OVERLAPS = [
    "Yesterday Aya GOES, for a walk -- of 9 kilometers: at s, he said.",
    "goes\tfor\n\na   walk of $9$ kilometers at \\(s\\)",
    r"morning, \textbf{Aya} goes for \left(a walk\right) of $\mathrm{9}$ kilometers!",
    "and so: and drinks a cafe\u0301 au lait of \\$900$ ml / h, and",
    "\uff21\uff59\uff41 goes for a walk of \uff19 kilometers \uff21\uff54",
    "[Every-morning] {Aya} goes for a *walk* of/9",
]
NO_OVERLAPS = [
    "Aya goes for a walk of 9 km",
    "goes for a walk of 9 meters at s km",
    "goes for a walk of 90 kilometers at s",
    "every morning Aya goes for a walk " * 3,
    "",
    "$$ ... ?!",
]


@pytest.mark.parametrize("prompt", OVERLAPS)
def test_an_overlap_is_found_across_punctuation_case_spaces_unicode_and_latex(prompt):
    assert shares_ngram([prompt], [BENCHMARK]).tolist() == [True]


def test_what_shares_fewer_words_is_no_overlap():
    assert shares_ngram(NO_OVERLAPS, [BENCHMARK, "", "..."]).tolist() == [False] * len(NO_OVERLAPS)


def test_planted_overlaps_are_found_and_nothing_else():
    generator = random.Random(0)
    vocabulary = [f"{a}{b}" for a in "bcdfgk" for b in "aeiou"]

    def text(count):
        return generator.choices(vocabulary, k=count)

    # Different letters in the benchmark, so that only what is planted can be shared.
    benchmark = [[w.replace("a", "x") + "q" for w in text(40)] for _ in range(50)]
    prompts, expected = [], []
    for _ in range(600):
        length = generator.choice([0, 7, 8, 9, 12])
        start = generator.randrange(40 - length)
        planted = generator.choice(benchmark)[start : start + length]
        marks = generator.choices([" ", ", ", "\n", "$ ", ". (", "-"], k=30 + length)
        prompts.append("".join(w.title() + m for w, m in zip(text(15) + planted + text(15), marks)))
        expected.append(length >= 9)
    assert shares_ngram(prompts, map(" ".join, benchmark)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7+5*3-2=", ["7", "+5", "*3", "-2"]),
        (" 7 + 5 *3 -2 = ", ["7", "+5", "*3", "-2"]),
        ("$7+{5}\\times 3\u22122$", ["7", "+5", "*3", "-2"]),
        ("\\frac{1}{2} 1/2 \u00bd", ["1", "2"] * 3),
        ("well-known **7** x-1 a_2 3x", ["well", "known", "7", "x", "1", "a", "2", "3", "x"]),
        (r"\begin{align*}\sin\left(x\right)\leftarrow\pi", ["sin", "x", "leftarrow", "pi"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
    ],
)
def test_how_words_are_cut(text, expected):
    assert words(text) == expected


def test_chains_don_t_collide_by_chance():
    generator = random.Random(0)
    chains = sorted({sample_prompt(generator, 2 + i % 7) for i in range(20_000)})
    generator.shuffle(chains)
    benchmark, training = chains[:500], chains[500:]
    assert not shares_ngram(training, benchmark).any()
    spaced = [" ".join(chain) for chain in benchmark]
    assert shares_ngram(spaced, benchmark).all()


def test_a_chain_inside_a_longer_one_is_found_from_nine_numbers_on():
    chain = "1+2*3-4+5*6-7+8*9="
    assert (
        shares_ngram(["0*" + chain, "0*" + chain.replace("+8", "-8"), "0*" + chain[2:]], [chain]).tolist()
        == [False] * 3
    )


def test_n_below_one_is_an_error():
    with pytest.raises(ValueError, match="n=0: must be at least 1"):
        shares_ngram(["a"], ["a"], n=0)
