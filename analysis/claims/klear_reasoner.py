"""Lists Klear-Reasoner's claims, C1 to C24; C20 needs no runs, judge.py works it out."""

from functools import partial

from analysis.claims.claim import (
    METHOD,
    NO_DIFFERENCE,
    Claim,
    Effect,
    measure_gap,
    method_gap,
    score_gap,
    value_gap,
)
from analysis.paper.effects import (
    curve_difference,
    few_against_many,
    from_curves,
    last_points,
    mean_step,
    none_published,
    rises,
    row_differences,
)
from analysis.sweeps.effects import (
    calm,
    difference_of,
    in_every_arm,
    late,
    learning_score,
    on_all_arms,
    rise,
    roughness,
    whole,
)

TEACHER, ALPHA = "teacher", "rl.alpha"
FILTER, CORRECT, SOURCES = "difficulty_filter", "correctness", "data.top_sources"
BETAS = ("clip_method.beta1", "clip_method.beta2")
THREE = {METHOD: ["clip_higher", "cispo", "gppo"]}  # the methods of Figure 2
CALM = 3.0  # the largest gradient norm of a stable run, as a multiple of its median


def correctness_gap(difficulty: str, better: str, worse: str) -> Effect:
    """Returns the effect: final avg@n of one `correctness` less another, at one difficulty."""
    return score_gap({FILTER: [difficulty], CORRECT: [better]}, {FILTER: [difficulty], CORRECT: [worse]})


ENTROPY_GAP = difference_of(whole("policy/entropy_high_clipped"), whole("policy/entropy_unclipped"))
REWARD = "reward/mean"
KLEAR_REASONER = (
    Claim(
        "C1",
        "SFT on easy prompts: only correct answers beat mixed ones",
        "table2",
        "final avg@n, only_true less mixed, easy prompts",
        correctness_gap("easy", "only_true", "mixed"),
        partial(row_differences, "table2", "easy/only_true", "easy/mixed"),
    ),
    Claim(
        "C2",
        "SFT on hard prompts: mixed answers beat only correct ones",
        "table2",
        "final avg@n, mixed less only_true, hard prompts",
        correctness_gap("hard", "mixed", "only_true"),
        partial(row_differences, "table2", "hard/mixed", "hard/only_true"),
    ),
    Claim(
        "C3",
        "SFT on all prompts: no clear difference between mixed and only correct answers",
        "table2",
        f"final avg@n, mixed less only_true, all prompts; equal within {NO_DIFFERENCE}",
        correctness_gap("overall", "mixed", "only_true"),
        partial(row_differences, "table2", "overall/mixed", "overall/only_true"),
        of_equality=True,
    ),
    Claim(
        "C4",
        "a stronger teacher makes a better student",
        "table3",
        "final avg@n, strong less weak teacher",
        score_gap({TEACHER: ["strong"]}, {TEACHER: ["weak"]}),
        partial(row_differences, "table3", "DeepSeek-R1-0528", "QwQ-32B"),
    ),
    Claim(
        "C5",
        "math: few of the best sources beat many",
        "table4",
        "final avg@n, mean of Top 1 and 2 less mean of Top 4 to 10",
        score_gap({SOURCES: ["1", "2"]}, {SOURCES: ["4", "6", "8", "10"]}),
        partial(few_against_many, "table4"),
    ),
    Claim(
        "C6",
        "code: few of the best sources beat many",
        "table5",
        "final avg@n, mean of Top 1 and 2 less mean of Top 4 and 6",
        score_gap({SOURCES: ["1", "2"]}, {SOURCES: ["4", "6"]}),
        partial(few_against_many, "table5"),
    ),
    Claim(
        "C7",
        "GPPO ends above GRPO with Clip-Higher",
        "figure2",
        "final avg@n, gppo less clip_higher",
        method_gap("gppo", "clip_higher"),
        partial(last_points, "figure2", "gppo", "grpo_clip_higher"),
    ),
    Claim(
        "C8",
        "GPPO ends above CISPO",
        "figure2",
        "final avg@n, gppo less cispo",
        method_gap("gppo", "cispo"),
        partial(last_points, "figure2", "gppo", "cispo"),
    ),
    Claim(
        "C9",
        "CISPO beats Clip-Higher",
        "figure2",
        "final avg@n, cispo less clip_higher",
        method_gap("cispo", "clip_higher"),
        partial(last_points, "figure2", "cispo", "grpo_clip_higher"),
    ),
    Claim(
        "C10",
        "all three methods keep a stable gradient norm",
        "figure2",
        f"{CALM:g} less the largest gradient norm over the median one, of the method where that is lowest",
        partial(in_every_arm, measure=calm("optim/grad_norm", CALM), arms=THREE),
        partial(from_curves, "figure2", "grad_norm", lambda v: CALM - v.max() / v.median()),
    ),
    Claim(
        "C11",
        "the SFT term helps: alpha > 0 beats alpha = 0",
        "table6",
        "final avg@n, mean of alpha 0.05, 0.1, 0.2 less alpha 0",
        score_gap({ALPHA: ["0.05", "0.1", "0.2"]}, {ALPHA: ["0.0"]}),
        partial(row_differences, "table6", ("alpha=0.05", "alpha=0.1", "alpha=0.2"), "alpha=0"),
    ),
    Claim(
        "C12",
        "alpha = 0.1 is better than 0.2",
        "table6",
        "final avg@n, alpha 0.1 less alpha 0.2",
        score_gap({ALPHA: ["0.1"]}, {ALPHA: ["0.2"]}),
        partial(row_differences, "table6", "alpha=0.1", "alpha=0.2"),
    ),
    Claim(
        "C13",
        "a soft code reward ends above a hard one",
        "figure3",
        "final avg@n, soft less hard",
        value_gap("reward.code", "soft", "hard"),
        partial(last_points, "figure3", "soft_reward", "hard_reward"),
    ),
    Claim(
        "C14",
        "a soft code reward has a less variable mean reward",
        "figure3",
        "mean absolute change of the mean reward from step to step, hard less soft",
        measure_gap(roughness(REWARD), {"reward.code": ["hard"]}, {"reward.code": ["soft"]}),
        partial(curve_difference, "figure3", "reward", mean_step, "hard_reward", "soft_reward"),
    ),
    Claim(
        "C15",
        "code prompts filtered by pass@16 beat unfiltered ones",
        "figure4",
        "final avg@n, filtered less unfiltered",
        value_gap("data.filter_rl"),
        partial(last_points, "figure4", "filtered", "unfiltered"),
    ),
    Claim(
        "C16",
        "dropping groups without advantage beats keeping them",
        "figure5",
        "final avg@n, dropped less kept",
        value_gap("rl.drop_zero_advantage"),
        partial(last_points, "figure5", "drop_zero_advantage", "keep_zero_advantage"),
    ),
    Claim(
        "C17",
        "the mean reward rises with and without groups that have no advantage",
        "figure5",
        "mean reward of the last quarter of the steps less that of the first, of the arm where that is lower",
        partial(in_every_arm, measure=rise(REWARD), arms={"rl.drop_zero_advantage": ["true", "false"]}),
        partial(from_curves, "figure5", "reward", rises),
    ),
    Claim(
        "C18",
        "tokens above the upper bound with A > 0, which clipping silences, have higher entropy than the others",
        "figure2",
        "entropy of high-clipped less that of unclipped tokens (nats), mean over steps and methods",
        partial(on_all_arms, measure=ENTROPY_GAP, arms=THREE),
        none_published,
    ),
    Claim(
        "C19",
        "keeping the gradient of negative tokens below the lower bound speeds learning up",
        "ce_gppo",
        "avg@n over all evaluations, beta1 1 less beta1 0, mean over beta2",
        measure_gap(learning_score, {BETAS[0]: ["1.0"]}, {BETAS[0]: ["0.0"]}),
        none_published,
    ),
    Claim(
        "C21",
        "RL on top of SFT lifts the benchmarks",
        "table1",
        "final avg@n, SFT and RL less SFT",
        score_gap({"recipe": ["sft_rl"]}, {"recipe": ["sft"]}),
        partial(row_differences, "table1", "Klear-Reasoner-8B", "Klear-Reasoner-8B-SFT"),
    ),
    Claim(
        "C22",
        "with a short length limit, training is unstable unless truncated responses are masked",
        "overlong",
        "final avg@n at a limit of 44 tokens, masked less not masked",
        score_gap(
            {"rl.max_response_tokens": ["44"], "rl.mask_overlong": ["true"]},
            {"rl.max_response_tokens": ["44"], "rl.mask_overlong": ["false"]},
        ),
        none_published,
    ),
    Claim(
        "C23",
        "more gradient on the high side keeps entropy up",
        "ce_gppo",
        "entropy of the last quarter of the steps (nats), beta2 1 less beta2 0, mean over beta1",
        measure_gap(late("policy/entropy"), {BETAS[1]: ["1.0"]}, {BETAS[1]: ["0.0"]}),
        none_published,
    ),
    Claim(
        "C24",
        "GPPO is steadier than CISPO",
        "stability",
        "final avg@n, gppo less cispo, mean over learning rates and mini-batches",
        method_gap("gppo", "cispo"),
        none_published,
    ),
)
