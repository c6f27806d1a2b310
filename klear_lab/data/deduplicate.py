"""Exact deduplication of queries (arXiv 2508.07629, SFT and RL data alike), over columns of a million rows.

Two prompts are the same query if they are equal after Unicode normalisation (NFKC) and with every run of white
space as one space, none at the ends; case counts. Rows are compared by 16-byte digests (BLAKE2b: one chance in
10**26 that any two of a million different texts collide), so memory grows by about 100 bytes a row and column,
whatever the length of the texts, and an iterable that reads rows from a file never holds more than one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def first_occurrences(
    prompts: Iterable[str], sources: Iterable[str] | None = None, responses: Iterable[str] | None = None
) -> NDArray[np.bool_]:
    """Returns a mask of the rows to keep, shape (rows,).

    With prompts alone, it keeps the first row of each query. With sources, a query belongs to the first source
    that has it, and other sources' rows of it go. With responses, compared exactly as they are written, the
    remaining rows of a query stay if their responses differ: a teacher answers a prompt up to 16 times.

    Raises `ValueError` for columns of different lengths.
    """
    query_digests = digest_column(map(normalise, prompts))
    _, first_row, query = np.unique(query_digests, return_index=True, return_inverse=True)
    rows = np.arange(len(query))
    if sources is not None:
        source = digest_column(sources)
        check_length("sources", source, rows)
        rows = rows[source == source[first_row[query]]]
    sample = query
    if responses is not None:
        _, response = np.unique(digest_column(responses), return_inverse=True)
        check_length("responses", response, query)
        sample = query * len(query) + response
    _, first_kept = np.unique(sample[rows], return_index=True)
    keep = np.zeros(len(query), dtype=np.bool_)
    keep[rows[first_kept]] = True
    return keep


def normalise(text: str) -> str:
    """Returns the text in NFKC, each run of white space as one space and none at the ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def digest_column(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Returns a digest of 16 bytes for each text, shape (texts,); different texts have different ones.

    Takes lone surrogates, which JSON can carry, too.
    """
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.fromiter(digests, dtype="S16")


def check_length(name: str, column: NDArray[np.generic], rows: NDArray[np.int64]) -> None:
    """Raises `ValueError` for a column that is not as long as the prompts."""
    if len(column) != len(rows):
        raise ValueError(f"{name}: {len(column)} rows, but prompts has {len(rows)}")
