"""The registry: a new verifier is one file, found by rows, rewards and data preparation without another word."""

import sys

import pytest

import klear_lab.verify
from klear_lab.config import ConfigError, RewardConfig
from klear_lab.data.read_rows import read_rows
from klear_lab.verify import registry
from klear_lab.verify.registry import Verdict, Verifier, verifier, verifier_of, verifiers_by_part
from klear_lab.verify.rewards import reasons, score_responses
from klear_lab.verify.verifiers import Verifiers
from support.rows import rl_row, write

RHYMES = '''
"""Verifies verse: the last words of two lines must end alike."""

from klear_lab.config import ConfigError
from klear_lab.verify.registry import Verdict, Verifier, verifier


@verifier
class RhymeVerifier(Verifier):
    """Judges by the last two letters."""

    part = "verse"
    reasons = ("correct", "no_rhyme")

    @classmethod
    def check(cls, row):
        """Raises `ConfigError` for a ground truth of one letter."""
        if len(row["reward_model"]["ground_truth"]) < 2:
            raise ConfigError(f"row {row.get('id')}: nothing rhymes with it")

    def verify(self, answers, rows, draw):
        """1 for a rhyme."""
        ends = [row["reward_model"]["ground_truth"][-2:] for row in rows]
        right = [answer.strip().endswith(end) for answer, end in zip(answers, ends, strict=True)]
        return [Verdict(float(r), "correct" if r else "no_rhyme") for r in right]
'''


@pytest.fixture
def rhymes(tmp_path, monkeypatch):
    """The file above, as if it lay in klear_lab/verify/."""
    registry.import_verifiers()  # those that are there stay registered afterwards
    (tmp_path / "rhymes.py").write_text(RHYMES)
    monkeypatch.setattr(klear_lab.verify, "__path__", [*klear_lab.verify.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))
    registry.import_verifiers.cache_clear()
    yield
    sys.modules.pop("klear_lab.verify.rhymes", None)
    registry.import_verifiers.cache_clear()


def test_a_new_file_is_all_that_a_verifier_needs(rhymes, tmp_path):
    row = rl_row(data_source="verse_couplets", reward_model={"ground_truth": "moon", "style": "rule"})
    assert read_rows([write(tmp_path / "x.jsonl", [row])], None, "rl").rows == [row]
    chain = rl_row(id="b", data_source="chain_exact", reward_model={"ground_truth": "4", "style": "rule"})
    reward = RewardConfig(name="paper", correct=1.0, wrong=-1.0)
    with Verifiers([row, chain], reward, workers=1, sandbox="auto") as verifiers:
        texts = [f"<think></think>{answer}" for answer in ("June", "spoon", "4")]
        scores = score_responses(texts, [row, row, chain], reward, verifiers)
    assert [(s.reward, s.reason) for s in scores] == [(-1.0, "no_rhyme"), (1.0, "correct"), (1.0, "correct")]
    assert "no_rhyme" in reasons()


def test_its_check_names_a_row_that_it_cannot_judge(rhymes, tmp_path):
    row = rl_row(data_source="verse", reward_model={"ground_truth": "x", "style": "rule"})
    with pytest.raises(ConfigError, match=r"x.jsonl, line 1: ground_truth: row a: nothing rhymes with it"):
        read_rows([write(tmp_path / "x.jsonl", [row])], None, "rl")


def test_without_the_file_no_verifier_knows_the_row():
    with pytest.raises(
        ConfigError, match="data_source=verse has no verifier; it must contain one of chain, coder"
    ):
        verifier_of({"id": 1, "data_source": "verse"})
    assert [*verifiers_by_part()] == ["chain", "coder", "math", "reasoning_gym"]


def test_two_verifiers_of_the_same_rows_are_an_error(monkeypatch):
    monkeypatch.setattr(registry, "REGISTERED", dict(registry.REGISTERED))

    class Second(Verifier):
        part = "math"

        def verify(self, answers, rows, draw):
            return [Verdict(0.0, "wrong") for _ in answers]

    verifiers_by_part()
    with pytest.raises(ValueError, match="Second: MathVerifier judges rows with 'math' already"):
        verifier(Second)
