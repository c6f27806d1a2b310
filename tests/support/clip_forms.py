"""Every clip method's closed form, in plain numbers: what tests of the methods and of the whole step compare with.

It shares no code with klear_lab. A new method needs one entry here, in FORMS; until then its tests fail.

Each form takes a mini-batch, one `Answer` for each response, and returns F A of its tokens, one array a response.
"""

from dataclasses import dataclass

import numpy as np

LOW, HIGH, BETA1, BETA2 = 0.2, 0.28, 0.6, 1.3
# Of the methods whose tests would clip too little or too much with LOW and HIGH, or that have no such parameters.
PARAMETERS = {
    "ce_gppo": {"eps_low": LOW, "eps_high": HIGH, "beta1": BETA1, "beta2": BETA2},
    "sapo": {"tau_pos": 1.5, "tau_neg": 2.5},
    "dppo_tv": {"low": 0.02, "high": 0.03, "cap": 2.0},
    "dppo_kl": {"low": 0.002, "high": 0.003, "cap": 2.0},
    "dcpo": {"eps_low": 0.02, "eps_high": 0.03, "cap": 1.7},
    "aspo": {"eps_low": LOW, "eps_high": HIGH, "cap": 1.2},
    "topr": {"cap": 1.1},
    "drpo": {"threshold": 0.05},
    "dgpo": {"eps_low": LOW, "eps_high": HIGH, "n": 2.0, "m": 3.0},
    "gspo": {"eps_low": 0.02, "eps_high": 0.03},
    "luspo": {"eps_low": 0.02, "eps_high": 0.03},
    "gmpo": {"low": 0.1, "high": 0.15},
    "bapo": {
        "low_start": 0.7,
        "low_end": 0.9,
        "low_step": 0.05,
        "high_start": 1.1,
        "high_end": 1.6,
        "high_step": 0.1,
        "target": 0.9,
    },
    # All of its candidates, so that nothing is drawn.
    "clip_cov": {"low": 0.8, "high": 1.28, "share": 1.0, "cov_low": 0.2, "cov_high": 5.0},
    "kl_cov": {"share": 0.3, "beta": 0.4},
    "vespo": {"k_pos": 2.5, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0},
}


@dataclass
class Answer:
    """One response: log-probabilities now and then, advantages, and ratios where they aren't to be worked out."""

    log_prob: np.ndarray
    old_log_prob: np.ndarray
    advantage: np.ndarray
    ratio: np.ndarray | None = None

    def __post_init__(self):
        if self.ratio is None:
            with np.errstate(over="ignore"):
                self.ratio = np.exp(self.log_prob - self.old_log_prob)

    @property
    def p(self):
        return np.exp(np.minimum(self.log_prob, 0))

    @property
    def q(self):
        return np.exp(np.minimum(self.old_log_prob, 0))


def parameters_of(name):
    return PARAMETERS.get(name, {"eps_low": LOW, "eps_high": HIGH})


def beyond(value, low, high, a):
    """Where a token moved beyond its bounds, in the direction that its advantage pushes."""
    return (value < low) & (a < 0), (value > high) & (a > 0)


def ppo(r, a, low, high, at_low=0.0, at_high=0.0):
    """r, but other weights beyond the bounds."""
    is_low, is_high = beyond(r, low, high, a)
    return np.select([is_low, is_high], [at_low, at_high], r)


def sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def sapo(r, a, tau_pos, tau_neg):
    tau = np.where(a > 0, tau_pos, tau_neg)
    gate = sigmoid(tau * (r - 1))
    with np.errstate(invalid="ignore"):
        return np.where(gate == 1, 0.0, 4 * r * gate * (1 - gate))


def dppo(move, r, a, low, high, cap):
    is_low, is_high = beyond(move, -low, high, a)
    return np.where(is_low | is_high, 0.0, np.minimum(r, cap))


def coin_kl(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        return q * np.log(q / p) + (1 - q) * np.log((1 - q + 1e-8) / (1 - p + 1e-8))


def dcpo_range(q, eps_low, eps_high, cap):
    low = (1 + np.sqrt(np.maximum(0, 1 - 4 * eps_low / q))) / 2
    return low, np.minimum((1 + np.sqrt(1 + 4 * eps_high / q)) / 2, cap)


def aspo(r, a, eps_low, eps_high, cap):
    is_low, is_high = beyond(r, 1 - eps_low, 1 + eps_high, a)
    with np.errstate(divide="ignore"):
        return np.where(is_low | is_high, 0.0, np.minimum(np.where(a > 0, 1 / r, r), cap))


def drpo(r, a, q, threshold):
    held = np.clip(r, np.exp(-20), np.exp(20))
    return np.where(held == r, held * (1 - np.sign(a) * q * (held - 1) / threshold), 0.0)


def dgpo(r, a, eps_low, eps_high, n, m):
    with np.errstate(over="ignore"):
        low, high = r ** (n + 1) / (1 - eps_low) ** n, (1 + eps_high) ** (1 / m) * r ** (1 - 1 / m)
    return ppo(r, a, 1 - eps_low, 1 + eps_high, low, high)


def log_ratio(one):
    return one.log_prob - one.old_log_prob


def sequence_ratio(log_r):
    return np.full(log_r.shape, np.exp(min(10, log_r.sum() / len(log_r))))


def sequence_bounds(one, eps_low, eps_high):
    return sequence_ratio(log_ratio(one)), 1 - eps_low, 1 + eps_high


def gspo(log_r, a, eps_low, eps_high):
    return ppo(sequence_ratio(log_r), a, 1 - eps_low, 1 + eps_high)


def gmpo(log_r, a, low, high):
    c = np.where(a < 0, np.maximum(log_r, -low), np.where(a > 0, np.minimum(log_r, high), log_r))
    return np.where(c == log_r, sequence_ratio(c), 0.0)


def vespo(log_r, a, k_pos, lambda_pos, k_neg, lambda_neg):
    k, slope = (k_pos, lambda_pos) if a[0] >= 0 else (k_neg, lambda_neg)
    w = np.exp(np.clip(np.clip(log_r, -20, 20).sum(), np.log(1e-8), 20))
    return np.full(log_r.shape, np.exp(slope) * w**k * np.exp(-slope * w))


def bapo_bounds(answers, low_start, low_end, low_step, high_start, high_end, high_step, target):
    r, a = (np.concatenate([getattr(one, part) for one in answers]) for part in ("ratio", "advantage"))
    lows, highs = [low_start], [high_start]
    while lows[-1] < low_end:
        lows.append(min(lows[-1] + low_step, low_end))
    while highs[-1] < high_end:
        highs.append(min(highs[-1] + high_step, high_end))
    tried = [(low, high_start) for low in lows] + [(low_end, high) for high in highs[1:]]
    for low, high in tried:
        positive, negative = (np.minimum(r, high) * a)[a > 0].sum(), -(np.maximum(r, low) * a)[a < 0].sum()
        if negative == 0 or positive / (negative + 1e-8) >= target:
            break
    return low, high


def covariances(answers):
    """Each token's part of the covariance, an array for each answer, and all together."""
    a, log_prob = (np.concatenate([getattr(one, part) for one in answers]) for part in ("advantage", "log_prob"))
    parts = [(one.advantage - a.mean()) * (one.log_prob - log_prob.mean()) for one in answers]
    return parts, np.concatenate(parts)


def clip_cov(answers, low, high, share, cov_low, cov_high):
    assert share == 1.0
    parts, _ = covariances(answers)
    return [
        np.where((c > cov_low) & (c < cov_high), 0.0, ppo(one.ratio, one.advantage, low, high) * one.advantage)
        for one, c in zip(answers, parts)
    ]


def kl_cov(answers, share, beta):
    parts, together = covariances(answers)
    lowest = np.sort(together)[::-1][max(1, int(share * len(together))) - 1]
    return [
        one.ratio * one.advantage - beta * np.sign(log_ratio(one)) * (c >= lowest)
        for one, c in zip(answers, parts)
    ]


# F of a token: of r, its advantage, and its probabilities now and then.
OF_TOKENS = {
    "none": lambda r, a, p, q, **_: r,
    "grpo": lambda r, a, p, q, **_: ppo(r, a, 1 - LOW, 1 + HIGH),
    "clip_higher": lambda r, a, p, q, **_: ppo(r, a, 1 - LOW, 1 + HIGH),
    "cispo": lambda r, a, p, q, **_: np.clip(r, 1 - LOW, 1 + HIGH),
    "cispo_upper": lambda r, a, p, q, **_: np.minimum(r, 1 + HIGH),
    "gppo": lambda r, a, p, q, **_: ppo(r, a, 1 - LOW, 1 + HIGH, 1 - LOW, 1 + HIGH),
    "gppo_upper": lambda r, a, p, q, **_: ppo(r, a, -1, 1 + HIGH, 0, 1 + HIGH),
    "ce_gppo": lambda r, a, p, q, **_: ppo(r, a, 1 - LOW, 1 + HIGH, BETA1 * (1 - LOW), BETA2 * (1 + HIGH)),
    "sapo": lambda r, a, p, q, **own: sapo(r, a, **own),
    "dppo_tv": lambda r, a, p, q, **own: dppo(p - q, r, a, **own),
    "dppo_kl": lambda r, a, p, q, **own: dppo(np.sign(p - q) * coin_kl(p, q), r, a, **own),
    "dcpo": lambda r, a, p, q, **own: ppo(r, a, *dcpo_range(q, **own)),
    "aspo": lambda r, a, p, q, **own: aspo(r, a, **own),
    "topr": lambda r, a, p, q, cap: np.where(a > 0, 1.0, np.minimum(r, cap)),
    "drpo": lambda r, a, p, q, **own: drpo(r, a, q, **own),
    "dgpo": lambda r, a, p, q, **own: dgpo(r, a, **own),
}
# What is measured of tokens and between which bounds, for one response; None without bounds. Else r and PPO's.
BOUNDS = {
    "sapo": None,
    "dppo_tv": lambda one, low, high, cap: (one.p - one.q, -low, high),
    "dppo_kl": lambda one, low, high, cap: (np.sign(one.p - one.q) * coin_kl(one.p, one.q), -low, high),
    "dcpo": lambda one, **own: (one.ratio, *dcpo_range(one.q, **own)),
    "topr": lambda one, cap: (one.ratio, 0.0, cap),
    "drpo": lambda one, threshold: (one.p - one.q, -threshold, threshold),
    "gspo": lambda one, **own: sequence_bounds(one, **own),
    "luspo": lambda one, **own: sequence_bounds(one, **own),
    "gmpo": lambda one, low, high: (log_ratio(one), -low, high),
    "vespo": None,
    "clip_cov": lambda one, low, high, **_: (one.ratio, low, high),
    "kl_cov": None,
}
# F of a response's tokens: of their log-ratios and advantages.
OF_RESPONSES = {
    "gspo": gspo,
    "luspo": lambda log_r, a, **own: len(log_r) * gspo(log_r, a, **own),
    "gmpo": gmpo,
    "vespo": vespo,
}
# F A of all tokens: of the mini-batch's answers.
OF_MINI_BATCHES = {
    "bapo": lambda answers, **own: [
        ppo(one.ratio, one.advantage, *bapo_bounds(answers, **own)) * one.advantage for one in answers
    ],
    "clip_cov": lambda answers, **own: clip_cov(answers, **own),
    "kl_cov": lambda answers, **own: kl_cov(answers, **own),
}


def regions(name, one):
    """Returns which tokens of an answer are below the method's bounds, and which above, two arrays."""
    bounds = BOUNDS.get(name, lambda one, **_: (one.ratio, 1 - LOW, 1 + HIGH))
    if bounds is None:
        return np.zeros(one.ratio.shape, bool), np.zeros(one.ratio.shape, bool)
    value, low, high = bounds(one, **parameters_of(name))
    return value < low, value > high


def derivatives(name, answers, dual_clip=None, **other):
    """Returns F A, the derivative of each token's objective, an array for each answer."""
    own = {**parameters_of(name), **other}
    if name in OF_MINI_BATCHES:
        found = OF_MINI_BATCHES[name](answers, **own)
    elif name in OF_RESPONSES:
        found = [OF_RESPONSES[name](log_ratio(one), one.advantage, **own) * one.advantage for one in answers]
    else:
        r, a, p, q = (
            np.concatenate([getattr(one, part) for one in answers]) for part in ("ratio", "advantage", "p", "q")
        )
        ends = np.cumsum([len(one.ratio) for one in answers])[:-1]
        found = np.split(OF_TOKENS[name](r, a, p, q, **own) * a, ends)
    beyond_dual = [(one.ratio > (dual_clip or np.inf)) & (one.advantage < 0) for one in answers]
    return [
        np.where(dual | (one.advantage == 0) & (name not in OF_MINI_BATCHES), 0.0, values)
        for one, dual, values in zip(answers, beyond_dual, found)
    ]
