"""The embedded world at scale=small: SFT leaves something to discover, and RL discovers it. A minute."""

from klear_lab.pipeline import run_pipeline
from klear_lab.validation import parse


def test_sft_scores_in_the_middle_and_rl_lifts_it(composed_config, tmp_path):
    composed = composed_config("scale=small", f"runs_dir={tmp_path}", "rl.steps=12", "eval.every=12")
    frame = run_pipeline(parse(composed), composed).evaluations()
    score = frame[frame["benchmark"] == "chain6"].groupby("step")["correct"].mean()
    assert 0.2 < score[0] < 0.7
    assert score[12] > score[0] + 0.08
