"""Lists CE-GPPO's claims, G1 to G4, as its README makes them: C19 and C23 are about its betas too."""

from functools import partial

from analysis.claims.claim import METHOD, Claim, measure_gap, method_gap
from analysis.paper.effects import model_gaps, none_published
from analysis.sweeps.effects import late

CE_GPPO = (
    Claim(
        "G1",
        "CE-GPPO ends above GRPO",
        "ce_gppo_methods",
        "final avg@n, ce_gppo less grpo",
        method_gap("ce_gppo", "grpo"),
        partial(model_gaps, "ce_gppo_methods", "CE-GPPO", "GRPO", "avg"),
    ),
    Claim(
        "G2",
        "CE-GPPO ends above DAPO",
        "ce_gppo_methods",
        "final avg@n, ce_gppo less clip_higher, which stands for DAPO",
        method_gap("ce_gppo", "clip_higher"),
        partial(model_gaps, "ce_gppo_methods", "CE-GPPO", "DAPO", "avg"),
    ),
    Claim(
        "G3",
        "GRPO's entropy decays early, CE-GPPO's doesn't",
        "ce_gppo_methods",
        "entropy of the last quarter of the steps (nats), ce_gppo less grpo",
        measure_gap(late("policy/entropy"), {METHOD: ["ce_gppo"]}, {METHOD: ["grpo"]}),
        none_published,
    ),
    Claim(
        "G4",
        "without the gradient of negative tokens below the lower bound entropy grows",
        "ce_gppo",
        "entropy of the last quarter of the steps (nats), beta1 0 less beta1 1, mean over beta2",
        measure_gap(late("policy/entropy"), {"clip_method.beta1": ["0.0"]}, {"clip_method.beta1": ["1.0"]}),
        none_published,
    ),
)
