"""How often two nearly equal policies draw different tokens from common random numbers, by the kind of draw.

    python benchmarks/common_random_numbers.py [--rows 4] [--vocabulary 151936] [--noise 0.01] [--draws 20]

Logits are normal, of several sharpnesses; the other policy's have normal noise added. The race is that of
klear_lab/sampling/draws.py, which is Gumbel-max; the inverse draw takes one uniform number a token and inverts the
cumulative distribution. Their shares are exact for each row of logits. No draw can part less often than the total
variation distance of the two distributions. As a check, each row's tokens are drawn a few times too.
"""

import argparse

import torch
from torch import Tensor

from klear_lab.sampling.draws import draw_tokens


def parted_by_race(p_BV: Tensor, q_BV: Tensor) -> Tensor:
    """Returns the probability that the race's winners under p and q differ, shape (B,).

    Both are token i with probability 1 / sum_j max(p_j / p_i, q_j / q_i). Sorted by q / p, cumulative sums do.
    """
    ratio_BV, order_BV = (q_BV / p_BV).sort(-1)
    p_BV, q_BV = p_BV.gather(1, order_BV), q_BV.gather(1, order_BV)
    below_BV = p_BV.cumsum(-1)
    above_BV = q_BV.sum(-1, keepdim=True) - q_BV.cumsum(-1)
    return 1 - (p_BV / (below_BV + above_BV / ratio_BV)).sum(-1)


def parted_by_inverse(p_BV: Tensor, q_BV: Tensor) -> Tensor:
    """Returns the share of uniform numbers that lie in different tokens' stretches under p and q, shape (B,)."""
    p_end_BV, q_end_BV = p_BV.cumsum(-1), q_BV.cumsum(-1)
    start_BV = torch.maximum(p_end_BV - p_BV, q_end_BV - q_BV)
    return 1 - (torch.minimum(p_end_BV, q_end_BV) - start_BV).clamp(min=0).sum(-1)


def main() -> None:
    """Prints a line for each sharpness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="pairs of distributions")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--noise", type=float, default=0.01, help="standard deviation of the logits' noise")
    parser.add_argument("--draws", type=int, default=20, help="tokens drawn for each pair, as a check")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    print("perplexity   race   inverse   least possible   race, drawn")
    for sharpness in (4.0, 6.0, 8.0, 10.0):
        logits_BV = sharpness * torch.randn(arguments.rows, arguments.vocabulary, generator=generator)
        other_BV = logits_BV + arguments.noise * torch.randn(logits_BV.shape, generator=generator)
        p_BV, q_BV = logits_BV.double().softmax(-1), other_BV.double().softmax(-1)
        perplexity = (-(p_BV * p_BV.log()).sum(-1)).exp().median()
        differing = 0
        for draw in range(arguments.draws):
            key_B = torch.arange(arguments.rows), torch.full((arguments.rows,), draw)
            one_B, other_B = (draw_tokens(logits, *key_B, 1.0, 1.0)[0] for logits in (logits_BV, other_BV))
            differing += int((one_B != other_B).sum())
        shares = parted_by_race(p_BV, q_BV), parted_by_inverse(p_BV, q_BV), (p_BV - q_BV).abs().sum(-1) / 2
        race, inverse, least = (share.mean().item() for share in shares)
        drawn = differing / (arguments.rows * arguments.draws)
        print(f"{perplexity:10.1f}  {race:6.3%}  {inverse:7.3%}  {least:9.3%}  {drawn:12.3%}")


if __name__ == "__main__":
    main()
