"""Exact deduplication of queries (arXiv 2508.07629, SFT and RL data alike), over columns of a million rows.

Two prompts are the same query if they are equal after Unicode normalisation (NFKC) and with every run of white
space as one space, none at the ends; case counts. Rows are compared by 16-byte digests (BLAKE2b: one chance in
10**26 that any two of a million different texts collide), so memory grows by about 100 bytes a row and column,
whatever the length of the texts, and an iterable that reads rows from a file never holds more than one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from itertools import chain

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
    return first_digests(
        digest_column(map(normalise, prompts)),
        None if sources is None else digest_column(sources),
        None if responses is None else digest_column(responses),
    )


def first_answers(rows: Iterable[tuple[str, str, str]]) -> NDArray[np.bool_]:
    """Returns the mask of `first_occurrences` for rows of (prompt, source, response), and reads each row once."""
    texts = chain.from_iterable((normalise(prompt), source, response) for prompt, source, response in rows)
    return first_digests(*digest_column(texts).reshape(-1, 3).T)


def first_digests(
    prompt: NDArray[np.bytes_], source: NDArray[np.bytes_] | None, response: NDArray[np.bytes_] | None
) -> NDArray[np.bool_]:
    """Does the work of `first_occurrences` on digests of its columns."""
    _, first_row, query = np.unique(prompt, return_index=True, return_inverse=True)
    rows = np.arange(len(query))
    if source is not None:
        check_length("sources", source, rows)
        rows = rows[source == source[first_row[query]]]
    sample = query
    if response is not None:
        check_length("responses", response, query)
        _, answer = np.unique(response, return_inverse=True)
        sample = query * len(query) + answer
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
