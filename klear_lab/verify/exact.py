"""Verifies answers of the embedded math world: the text itself, compared with the ground truth."""

from collections.abc import Sequence

from klear_lab.rows import Row
from klear_lab.verify.registry import Verdict, Verifier, verifier
from klear_lab.worlds import chain


@verifier
class ExactVerifier(Verifier):
    """Judges by equality; needs no processes."""

    part = "chain"

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Gives 1 to the ground truth, 0 to anything else."""
        right = [
            chain.verify(a, row["reward_model"]["ground_truth"]) for a, row in zip(answers, rows, strict=True)
        ]
        return [Verdict(float(r), "correct" if r else "wrong") for r in right]
