"""What a step's tokens tell of the clip method at work. Formulas: docs/metrics.md."""

from torch import Tensor

from klear_lab.rl.loss import TokenRecord

Metrics = dict[str, float | None]


def clip_metrics(tokens: TokenRecord) -> Metrics:
    """Metrics of all response tokens of one RL step; None where there is no token to speak of."""
    log_ratio = tokens.log_prob - tokens.old_log_prob
    ratio = log_ratio.exp()
    weight = tokens.weight.abs()
    clipped = tokens.low | tokens.high
    total = weight.sum()
    p01, p99 = quantiles(ratio, 0.01, 0.99)
    return {
        "clip/low_fraction": mean(tokens.low),
        "clip/high_fraction": mean(tokens.high),
        "clip/dual_fraction": mean(tokens.dual),
        "clip/gradient_share": (weight[clipped].sum() / total).item() if total > 0 else None,
        "ratio/mean": mean(ratio),
        "ratio/p01": p01,
        "ratio/p99": p99,
        "ratio/max": ratio.max().item(),
        "policy/entropy": mean(tokens.entropy),
        "policy/entropy_high_clipped": mean(tokens.entropy[tokens.high]),
        "policy/entropy_low_clipped": mean(tokens.entropy[tokens.low]),
        "policy/entropy_unclipped": mean(tokens.entropy[~clipped]),
        "policy/kl_old": mean(ratio - 1 - log_ratio),
    }


def mean(values: Tensor) -> float | None:
    """None for no values."""
    return values.double().mean().item() if len(values) else None


def quantiles(values: Tensor, *shares: float) -> list[float]:
    """Nearest-rank quantiles; torch.quantile refuses more than 16 million values."""
    ordered = values.sort().values
    return [ordered[min(len(values) - 1, int(share * len(values)))].item() for share in shares]
