"""The verifiers that a run needs, opened together: mixed answers in, verdicts in the same order out.

What a verifier needs (a sandbox, processes) is opened once for a run, for the kinds of rows that it has, and tried
out before anything is trained.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Self

from klear_lab.config import RewardConfig
from klear_lab.rows import Row
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier_of


class Verifiers:
    """The verifiers that a set of rows needs; use as a context manager."""

    def __init__(self, rows: Iterable[Row], reward: RewardConfig, workers: int | None, sandbox: str) -> None:
        """Opens what the rows need; `workers` is processes for each kind, None for one a core.

        Raises `ConfigError` for a row that can't be verified, and `SandboxUnavailable` or `VerifierUnavailable`
        where a verifier doesn't work on this machine.
        """
        self.settings = VerifierSettings(reward, workers or os.cpu_count() or 1, sandbox)
        needed: dict[type[Verifier], None] = {}  # in the order of the rows
        for row in rows:
            kind = verifier_of(row)
            kind.check(row)
            needed[kind] = None
        with ExitStack() as stack:
            self.by_kind = {kind: stack.enter_context(kind.open(self.settings)) for kind in needed}
            self.opened = stack.pop_all()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends whatever they have started."""
        self.opened.close()

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Returns the verdict on each answer (the text after the thought), in order.

        `draw` seeds the choice of `reward.max_test_cases` test cases, the same for all answers to a row; None runs
        all of them.
        """
        verdicts: dict[int, Verdict] = {}
        kinds = [verifier_of(row) for row in rows]
        for kind in dict.fromkeys(kinds):
            places = [i for i, own in enumerate(kinds) if own is kind]
            found = self.by_kind[kind].verify([answers[i] for i in places], [rows[i] for i in places], draw)
            verdicts |= zip(places, found, strict=True)
        return [verdicts[i] for i in range(len(answers))]
