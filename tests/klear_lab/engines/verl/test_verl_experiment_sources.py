"""The paper's experiment against its sources: sections that the paper has, and the numbers of paper and scripts."""

import re

import pytest

from klear_lab.engines.verl.commented import file_of, settings_of

SETTINGS = {setting.key: setting for setting in settings_of(file_of("klear_reasoner_8b"))}
# The paper's sections that have no further ones within (arXiv 2508.07629, version of 11 August 2025).
SECTIONS = """1 2.1 2.2 2.3 2.4 3.1 3.2.1 3.2.2 3.2.3 3.2.4 4.1 4.2 4.3 5.1.1 5.1.2 5.1.3 5.2.1 5.2.2 5.2.3 5.2.4 5.2.5
6 A.1 A.2""".split()
NAMED = re.compile(r"[Ss]ections? (\d[\d.]*\d)((?:(?:,| and) \d[\d.]*\d)*)")
# What the paper says of this training, and the section that says it.
PAPER = {
    "model.path": ("4.1", "Qwen/Qwen3-8B-Base"),
    "override /clip_method": ("4.1", "gppo"),
    "override /recipe": ("4.1", "math_then_code"),
    "override /correctness": ("3.1", "mixed"),
    "data.decontaminate_ngram": ("3.1", 9),
    "data.minimum_tests": ("3.2.1", 16),
    "data.sft_budget": ("3.1", 1_500_000),
    "sft.learning_rate": ("4.1", 8e-5),
    "sft.final_learning_rate": ("4.1", 4e-5 / 8e-5),
    "sft.batches": ("4.1", "epochs"),
    "sft.steps": ("4.1", 4 * 1_500_000 // 512),
    "sft.max_tokens": ("4.1", 32 * 1024),
    "rl.phases[0].ability": ("4.1", "math"),
    "rl.phases[0].learning_rate": ("4.1", 1e-6),
    "rl.phases[0].mini_batch_prompts": ("4.1", 16),
    "rl.phases[1].ability": ("4.1", "code"),
    "rl.phases[1].learning_rate": ("4.1", 5e-7),
    "rl.phases[1].mini_batch_prompts": ("4.1", 32),
    "rl.prompts_per_step": ("4.1", 128),
    "rl.responses_per_prompt": ("4.1", 8),
    "rl.alpha": ("4.1", 0.1),
    "rl.group_std": ("2.2", "population"),
    "clip_method.eps_low": ("2.3", 0.2),
    "clip_method.eps_high": ("4.1", 0.28),
    "eval.temperature": ("4.3", 0.6),
    "eval.top_p": ("4.3", 0.95),
}
# Option of the authors' recipe/dapo/perf_run_dapo_ours_{math,code}.sh, its value there, and our key for it.
SCRIPTS = [
    ("max_prompt_length", 4096, "data.max_prompt_tokens"),
    ("max_response_length", 32768, "rl.max_response_tokens"),
    ("total_epochs", 5 * (30_000 // 256), "rl.phases[0].steps"),
    ("total_epochs", 5 * (15_000 // 256), "rl.phases[1].steps"),
    ("gen_batch_size", 256, "rl.prompts_per_step"),
    ("temperature", 1.0, "rl.temperature"),
    ("lr_warmup_steps", 10, "rl.warmup_updates"),
    ("weight_decay", 0.1, "rl.weight_decay"),
    ("grad_clip", 1.0, "rl.max_grad_norm"),
    ("clip_ratio_low", 0.2, "clip_method.eps_low"),
    ("clip_ratio_c", 10, "clip_method.dual_clip"),
    ("filter_groups.enable", True, "rl.drop_zero_advantage"),
    ("overlong_buffer.enable", None, "rl.overlong_buffer"),
    ("enable_gradient_checkpointing", True, "model.gradient_checkpointing"),
    ("ppo_max_token_len_per_gpu", 4 * (4096 + 32768) // 4, "rl.micro_batch_tokens"),
    ("max_model_len", 4096 + 32768, "sampler.max_model_len"),
    ("gpu_memory_utilization", 0.8, "sampler.gpu_memory_utilization"),
    ("val_kwargs.n", 1, "eval.samples"),
    ("test_freq", 5, "eval.every"),
    ("save_freq", 5, "checkpoint.rl_every"),
    ("nnodes", 32, "engine.nodes"),
    ("n_gpus_per_node", 8, "engine.gpus_per_node"),
    ("tensor_model_parallel_size", 2, "engine.tensor_parallel"),
    ("ulysses_sequence_parallel_size", 4, "engine.sequence_parallel"),
]


def value_of(key):
    value = SETTINGS[key].value
    try:
        return float(value)  # YAML reads 8e-5 as text
    except (TypeError, ValueError):
        return value


def sections_of(comment):
    return [
        part for first, others in NAMED.findall(comment) for part in [first, *re.findall(r"\d[\d.]*\d", others)]
    ]


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_a_section_that_a_comment_names_is_one_of_the_papers(key):
    comment = SETTINGS[key].comment
    assert {*sections_of(comment)} <= {*SECTIONS}
    assert not re.search(r"[Ss]ection \d+(?![\d.]*\d)", comment), "a section with others within says too little"


@pytest.mark.parametrize("key", sorted(PAPER))
def test_what_the_paper_says_is_set_and_its_section_named(key):
    section, said = PAPER[key]
    assert value_of(key) == said
    assert section in sections_of(SETTINGS[key].comment)


@pytest.mark.parametrize(("option", "there", "key"), SCRIPTS)
def test_the_scripts_value_is_set_or_named_beside_the_one_taken(option, there, key):
    comment = SETTINGS[key].comment
    assert re.search(r"\b[Ss]cripts\b", comment)
    assert value_of(key) == there or str(there) in comment


def test_a_setting_that_the_paper_leaves_open_names_no_section_for_it():
    for key in ("rl.weight_decay", "rl.max_grad_norm", "rl.temperature", "data.max_prompt_tokens", "optimizer"):
        assert not sections_of(SETTINGS[key].comment)
