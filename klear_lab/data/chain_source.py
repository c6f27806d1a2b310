"""Rows of the embedded math world: prompts, teacher traces, difficulty labels, benchmarks.

SFT, RL and benchmark prompts are disjoint by construction. Each draws from a random stream of its own, so that
more SFT rows don't change the RL prompts.
"""

import random
from typing import Any

from klear_lab.config import ChainSourceConfig, ConfigError, DataConfig
from klear_lab.tasks.chain import Teacher, make_teacher, sample_prompt, solve, verify

Row = dict[str, Any]


def load_chain(source: ChainSourceConfig, data: DataConfig) -> tuple[list[Row], list[Row], dict[str, list[Row]]]:
    """SFT rows, RL rows, and the rows of each benchmark, in the formats of the design's contracts."""
    taken: set[str] = set()
    benchmarks = {}
    for steps in source.benchmark_chain_steps:
        name = f"chain{steps}"
        stream = random.Random(f"{data.seed}-{name}")
        prompts = unseen_prompts(stream, [steps, steps], data.benchmark_rows, taken)
        benchmarks[name] = [rl_row(prompt, f"{name}-{i}") for i, prompt in enumerate(prompts)]
    rl_stream = random.Random(f"{data.seed}-rl")
    rl_prompts = unseen_prompts(rl_stream, source.rl_chain_steps, data.rl_rows, taken)
    sft_stream = random.Random(f"{data.seed}-sft")
    sft_prompts = unseen_prompts(sft_stream, source.sft_chain_steps, data.sft_rows, taken)
    return (
        sft_rows(sft_prompts, source, data.seed),
        [rl_row(p, f"rl-{i}") for i, p in enumerate(rl_prompts)],
        benchmarks,
    )


def unseen_prompts(stream: random.Random, steps: list[int], count: int, taken: set[str]) -> list[str]:
    """`count` prompts that are not in `taken`, which they are added to.

    Raises `ConfigError` where the lengths asked for don't have that many problems.
    """
    available = sum(10 * 30**k for k in range(steps[0], steps[1] + 1))
    if len(taken) + count > available // 2:
        raise ConfigError(
            f"data.*_rows: {count} prompts of {steps[0]} to {steps[1]} steps, but there are only {available} "
            "problems of that length and half of them are kept in reserve; ask for fewer or longer ones"
        )
    prompts: list[str] = []
    while len(prompts) < count:
        prompt = sample_prompt(stream, stream.randint(steps[0], steps[1]))
        if prompt not in taken:
            taken.add(prompt)
            prompts.append(prompt)
    return prompts


def rl_row(prompt: str, row_id: str) -> Row:
    """A row in the released Klear format, with an id."""
    return {
        "id": row_id,
        "data_source": "chain_exact",
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "math",
        "reward_model": {"ground_truth": solve(prompt), "style": "rule"},
    }


def sft_rows(prompts: list[str], source: ChainSourceConfig, seed: int) -> list[Row]:
    """One teacher answer a prompt, with the judge's difficulty and whether the answer is right."""
    teacher = make_teacher(source.teacher_misconceptions, source.teacher_error_rate, seed)
    judge = make_teacher(source.judge_misconceptions, source.judge_error_rate, seed + 1)
    teacher_stream = random.Random(f"{seed}-teacher-answers")
    judge_stream = random.Random(f"{seed}-judge-answers")
    rows = []
    for prompt in prompts:
        response = teacher.answer(prompt, teacher_stream)
        rows.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "response": response,
                "source": "chain",
                "teacher": "misconceptions",
                "difficulty": difficulty(prompt, judge, source.judge_samples, judge_stream),
                "correct": right(response, prompt),
            }
        )
    return rows


def difficulty(prompt: str, judge: Teacher, samples: int, stream: random.Random) -> float:
    """1 - the judge's pass rate on `samples` answers."""
    return 1 - sum(right(judge.answer(prompt, stream), prompt) for _ in range(samples)) / samples


def right(response: str, prompt: str) -> bool:
    """Whether a teacher's response, which is always well formed, ends in the right digit."""
    return verify(response.rpartition("</think>")[2], solve(prompt))
