"""What data preparation costs on a million rows: seconds, processor seconds and peak memory of each step, in a
process of its own. What all of them together cost at several sizes: data_sizes.py.

    python benchmarks/data.py [--rows 1000000] [--words 100] [--centres 31600] [--candidates 500000]

Rows are written on the fly by a random stream a row (words drawn as in English: the k-th most frequent one with
weight 1/k), so they take no memory, and the seconds of writing them alone are given to be subtracted. One row in
50 is a copy of an earlier one with other spaces; one in 100 has nine words of one of 1,000 benchmark prompts. Each
step checks that it found these and nothing else. K-Center Greedy takes its `centres` from random unit vectors
around 5,000 random topics.
"""

import argparse
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from klear_lab.data.decontaminate import shares_ngram
from klear_lab.data.deduplicate import first_occurrences
from klear_lab.data.k_center import embed, k_center_greedy, normalise_rows

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["".join(random.Random(f"word{i}").choices(LETTERS, k=3 + i % 7)) for i in range(30_000)]
WEIGHTS = [*accumulate(1 / k for k in range(1, len(VOCABULARY) + 1))]


@dataclass(frozen=True)
class Rows(Sequence[str]):
    """`rows` prompts of `words` words, written when asked for."""

    rows: int
    words: int
    name: str = "row"

    def __len__(self) -> int:
        """The number of rows."""
        return self.rows

    def __getitem__(self, at: Any) -> Any:
        """One row, or the list of a slice."""
        return [self.write(i) for i in range(self.rows)[at]] if isinstance(at, slice) else self.write(at)

    def __iter__(self) -> Iterator[str]:
        """The rows one by one."""
        return map(self.write, range(self.rows))

    def write(self, i: int) -> str:
        """The i-th row, with what is planted in it."""
        if copied(i) and self.name == "row":
            return self.write(i - 25).replace(" ", "  ", 3)
        drawn = random.Random(f"{self.name}{i}").choices(VOCABULARY, cum_weights=WEIGHTS, k=self.words)
        if overlaps(i) and self.name == "row":
            drawn[3:12] = BENCHMARK[i % 1000].upper().split()[5:14]
        return " ".join(drawn)


BENCHMARK = Rows(1000, 100, name="benchmark")


def copied(i: int) -> bool:
    """Whether row i is a copy of row i - 25."""
    return i % 50 == 49


def overlaps(i: int) -> bool:
    """Whether row i has nine words of a benchmark prompt."""
    return i % 100 == 7


def write_rows(a: argparse.Namespace) -> None:
    """What the steps below spend on the rows themselves."""
    for _ in Rows(a.rows, a.words):
        pass


def deduplicate(a: argparse.Namespace) -> None:
    """Prompts alone."""
    keep = first_occurrences(Rows(a.rows, a.words))
    assert [*np.flatnonzero(~keep)] == [i for i in range(a.rows) if copied(i)]


def deduplicate_answers(a: argparse.Namespace) -> None:
    """With sources and responses, as SFT rows have them; the answer of a copy is another one."""
    sources = (f"source{copied(i)}" for i in range(a.rows))
    keep = first_occurrences(Rows(a.rows, a.words), sources, map(str, range(a.rows)))
    assert [*np.flatnonzero(~keep)] == [i for i in range(a.rows) if copied(i)]


def decontaminate(a: argparse.Namespace) -> None:
    """Against 1,000 benchmark prompts."""
    found = shares_ngram(Rows(a.rows, a.words), BENCHMARK)
    assert [*np.flatnonzero(found)] == [i for i in range(a.rows) if overlaps(i)]


def embed_hashed(a: argparse.Namespace) -> None:
    """To 128 dimensions."""
    assert embed(Rows(a.rows, a.words), "hashed", seed=0).shape == (a.rows, 128)


def k_center(a: argparse.Namespace) -> None:
    """In 128 dimensions."""
    generator = np.random.default_rng(0)
    topics = generator.standard_normal((5000, 128), dtype=np.float32)
    embeddings_ND = generator.standard_normal((a.candidates, 128), dtype=np.float32)
    embeddings_ND *= 0.5
    embeddings_ND += topics[generator.integers(5000, size=a.candidates)]
    taken = k_center_greedy(normalise_rows(embeddings_ND), a.centres, seed=0)
    assert len(set(taken.tolist())) == a.centres


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    step.__name__: step
    for step in (write_rows, deduplicate, deduplicate_answers, decontaminate, embed_hashed, k_center)
}


def main() -> None:
    """Prints one line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("rows", 1_000_000), ("words", 100), ("centres", 31_600), ("candidates", 500_000))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step", choices=STEPS, help="only this one, in this process")
    a = parser.parse_args()
    if a.step:
        started = time.perf_counter()
        STEPS[a.step](a)
        seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        busy = f"({time.process_time():.1f} s of processors)"
        print(f"{a.step:20}{seconds:10.1f} s {busy:28}{peak / 1024:10.0f} MiB", flush=True)
        return
    print(f"{platform.machine()}, Python {platform.python_version()}; {a.rows} rows, {a.words} words", flush=True)
    for step in STEPS:
        given = [f"--{name}={getattr(a, name)}" for name, _ in sizes]
        subprocess.run([sys.executable, __file__, *given, "--step", step], check=True)


if __name__ == "__main__":
    main()
