"""A whole RL step against plain numpy, for every combination of switches: rewards to weights after the last update.

The policy is a table of logits, so that d log pi(t | s) / d table[s] = onehot(t) - softmax(table[s]) by hand. The
reference shares no code with the trainer. P prompts, G responses each, V vocabulary.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from klear_lab.policy.model import Policy
from klear_lab.policy.training_state import start_state
from klear_lab.rl import trainer
from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method
from klear_lab.rl.rollout import choose_groups, make_groups
from klear_lab.sampling.transformers import Response
from klear_lab.verify.rewards import Score
from support.clip_forms import BOUNDS, OF_RESPONSES, Answer, derivatives, parameters_of

V, P, G, MINI_BATCH, MICRO = 7, 6, 4, 2, 3
DUAL = 1.5
RATE, WARMUP, DECAY, MAX_NORM, BETAS = 0.4, 3, 0.1, 0.7, (0.9, 0.999)

DRAW = np.random.default_rng(5)
TABLE_VV = DRAW.normal(size=(V, V))
PROMPTS = [DRAW.integers(0, V, size=DRAW.integers(1, 4)).tolist() for _ in range(P)]
RESPONSES = [[DRAW.integers(0, V, size=DRAW.integers(1, 7)).tolist() for _ in range(G)] for _ in range(P)]
TRUNCATED = [[(p + g) % 3 == 0 for g in range(G)] for p in range(P)]
# Soft rewards, hard ones, and two groups without advantage, one of them all correct.
REWARD_PG = np.array(
    [[1, -1, 0.5, -0.25], [-1, -1, 1, 1], [1, 1, 1, 1], [0.75, -1, -1, -0.5], [-1, -1, -1, -1], [1, -1, -1, -1]]
)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def reference(name, dual_clip, s):
    """The table after the step; `s` are the switches."""
    deviation_PG = REWARD_PG - REWARD_PG.mean(1, keepdims=True)
    std_P1 = np.sqrt((deviation_PG**2).mean(1, keepdims=True))
    advantage_PG = deviation_PG / np.where(std_P1 > 0, std_P1, 1) if s.divide_by_std else deviation_PG
    groups = []
    for p in range(P):
        if std_P1[p] > 0 or not s.drop_zero_advantage:
            kept = [g for g in range(G) if not (s.mask_overlong and TRUNCATED[p][g])]
            groups.append([(PROMPTS[p], RESPONSES[p][g], advantage_PG[p, g], REWARD_PG[p, g] == 1) for g in kept])
    groups = [group for group in groups if group]

    def tokens(rollout):
        text = rollout[0] + rollout[1]
        return [(text[len(rollout[0]) + i - 1], t) for i, t in enumerate(rollout[1])]

    def answer(rollout, log_probs):
        contexts, ids = map(list, zip(*tokens(rollout)))
        return Answer(log_probs[contexts, ids], old[contexts, ids], np.full(len(ids), rollout[2]))

    table, m, v = TABLE_VV.copy(), 0.0, 0.0
    old = log_softmax(table)
    parts = -(-len(groups) // MINI_BATCH)
    bounds = [len(groups) * i // parts for i in range(parts + 1)]
    for updates, (i, j) in enumerate([*itertools.pairwise(bounds)] * s.epochs, start=1):
        batch = [*itertools.chain(*groups[i:j])]
        cut = s.token_mean == "micro_batch"
        micros = [batch[k : k + MICRO] for k in range(0, len(batch), MICRO)] if cut else [batch]
        gradient = np.zeros_like(table)
        log_probs = log_softmax(table)
        found = derivatives(name, [answer(r, log_probs) for r in batch], dual_clip)
        pulls = dict(zip(map(id, batch), found))
        for micro in micros:
            share = len(micro) / len(batch)
            count = sum(len(r[1]) for r in micro)
            count_right = sum(len(r[1]) for r in micro if r[3])
            for rollout in micro:
                each = len(batch) * len(rollout[1]) if s.token_mean == "sequence" else count
                for (c, t), pull in zip(tokens(rollout), pulls[id(rollout)] / each):
                    pull += s.alpha / count_right if rollout[3] else 0.0
                    gradient[c] -= share * pull * ((np.arange(V) == t) - np.exp(log_probs[c]))
        gradient *= min(1.0, MAX_NORM / (np.sqrt((gradient**2).sum()) + 1e-6))
        rate = RATE * min(1.0, updates / WARMUP)
        m, v = BETAS[0] * m + (1 - BETAS[0]) * gradient, BETAS[1] * v + (1 - BETAS[1]) * gradient**2
        table *= 1 - rate * DECAY
        table -= rate * (m / (1 - BETAS[0] ** updates)) / (np.sqrt(v / (1 - BETAS[1] ** updates)) + 1e-8)
    return table


class Table(torch.nn.Module):
    """Logits of the next token from the current one: one-hot vectors pick columns of the head's weight."""

    config = SimpleNamespace(get_text_config=lambda: None)

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(*TABLE_VV.shape, bias=False)
        self.head.weight = torch.nn.Parameter(torch.tensor(TABLE_VV).T.contiguous())

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.head(torch.nn.functional.one_hot(input_ids, len(TABLE_VV)).double()))


def trained(method, s, config):
    """The trainer's table after the step, and the tokens that its updates met."""
    policy = Policy(Table(), SimpleNamespace(pad_token_id=0), torch.device("cpu"), None)
    rl = config.rl
    rl.learning_rate, rl.warmup_updates, rl.weight_decay, rl.max_grad_norm = RATE, WARMUP, DECAY, MAX_NORM
    rl.mini_batch_prompts, rl.micro_batch_sequences, rl.alpha, rl.epochs = MINI_BATCH, MICRO, s.alpha, s.epochs
    rl.divide_by_std, rl.mask_overlong = s.divide_by_std, s.mask_overlong
    rl.drop_zero_advantage, rl.token_mean = s.drop_zero_advantage, s.token_mean
    state = start_state(policy, learning_rate=RATE, adam_betas=list(BETAS), weight_decay=DECAY)
    sampled = [[Response(RESPONSES[p][g], TRUNCATED[p][g]) for g in range(G)] for p in range(P)]
    scores = [[Score((x + 1) / 2, x == 1, True, x, "") for x in row] for row in REWARD_PG.tolist()]
    groups = make_groups(PROMPTS, sampled, scores, rl)
    updates, skipped, _ = trainer.update(state, choose_groups(groups, rl), method, rl)
    assert not skipped
    return policy.model.head.weight.detach().T.numpy(), [u.result.tokens for u in updates]


SWITCHES = {
    "divide_by_std": (True, False),
    "drop_zero_advantage": (True, False),
    "mask_overlong": (True, False),
    "token_mean": ("mini_batch", "micro_batch", "sequence"),
    "alpha": (0.0, 0.3),
    "epochs": (1, 2),
}


# Other methods leave out the switches that act before any method does.
OF_THE_PAPER = ("none", "grpo", "clip_higher", "cispo", "cispo_upper", "gppo", "gppo_upper", "ce_gppo")
# What a method's tokens are never found in, because it has no such bound.
NEVER = {
    **{name: {"low", "high", "below_positive", "above_negative"} for name, bounds in BOUNDS.items() if not bounds},
    "topr": {"low", "below_positive"},
}


# Of the methods one of each kind: no bound, one that silences, of weights, of responses; and the paper's own with both.
QUICK = {
    ("cispo", None),
    ("ce_gppo", None),
    ("gppo", None),
    ("gspo", None),
}


@pytest.mark.parametrize(
    ("name", "dual_clip"),
    [
        pytest.param(name, dual, marks=() if (name, dual) in QUICK else pytest.mark.slow)
        for name in sorted(CLIP_METHODS)
        for dual in (None, DUAL)
        if not dual or name not in OF_RESPONSES
    ],
)
def test_a_whole_step_is_the_references_for_every_combination_of_switches(name, dual_clip, config):
    method = make_clip_method(name, dual_clip=dual_clip, **parameters_of(name))
    c, met = config(), dict.fromkeys(("low", "high", "dual", "below_positive", "above_negative"), 0)
    fixed = {} if name in OF_THE_PAPER else dict.fromkeys(("divide_by_std", "mask_overlong"), (True,))
    for values in itertools.product(*{**SWITCHES, **fixed}.values()):
        s = SimpleNamespace(**dict(zip(SWITCHES, values, strict=True)))
        got, records = trained(method, s, c)
        want = reference(name, dual_clip, s)
        assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max(), s
        assert np.abs(got - TABLE_VV).max() > 0.1
        for tokens in records:
            met["low"] += int(tokens.low.sum())
            met["high"] += int(tokens.high.sum())
            met["dual"] += int(tokens.dual.sum())
            met["below_positive"] += int((tokens.below & (tokens.advantage > 0)).sum())
            met["above_negative"] += int((tokens.above & (tokens.advantage < 0)).sum())
    enough = 20 if name in OF_THE_PAPER else 2
    expected = {region: count > enough for region, count in met.items()}
    absent = NEVER.get(name, set()) | ({"dual"} if dual_clip is None else set())
    assert expected == {region: region not in absent for region in met}, met
