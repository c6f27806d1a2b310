"""Rows of the embedded worlds: prompts, teacher traces, difficulty labels, benchmarks, sources of falling quality.

SFT, RL and benchmark prompts are disjoint by construction. Each set draws from a random stream of its own, so that
more SFT rows don't change the RL prompts.
"""

import random
from dataclasses import dataclass
from typing import Any

from klear_lab.config import ConfigError, DataConfig, EmbeddedSourceConfig, TeacherConfig
from klear_lab.data_source_config import TwoWorldsConfig
from klear_lab.rows import Row, Source
from klear_lab.worlds import chain, functions

WORLDS: dict[str, Any] = {"chain": chain, "functions": functions}
STRONG_MODEL = (0.1, 0.3)  # misconceptions and error rate of the model that tries RL prompts (paper, 3.2.1)
COMPLETIONS = 16  # of that model, for each RL prompt


@dataclass(frozen=True)
class Quality:
    """Describes a source of SFT rows: its teacher's misconceptions and error rate, and how many rows have a flaw.

    All numbers are shares from 0 to 1.
    """

    name: str
    misconceptions: float
    error_rate: float
    short: float = 0.0  # prompts shorter than those that SFT trains on
    broken: float = 0.0  # responses without the end of the thought, or without an answer
    repeated: float = 0.0  # prompts that occur earlier in the source, with other white space
    contaminated: float = 0.0  # prompts taken from the benchmarks


# The stated quality order, best first: the sweep table4 uses all of them, table5 the first six.
SOURCES = (
    Quality("curated", 0.10, 0.7),
    Quality("textbook", 0.15, 0.7, repeated=0.05),
    Quality("forum", 0.20, 0.7, short=0.1, repeated=0.1),
    Quality("synthetic", 0.25, 0.7, short=0.2, repeated=0.1, contaminated=0.01),
    Quality("translated", 0.30, 0.7, broken=0.05, repeated=0.1),
    Quality("crawl", 0.35, 0.7, short=0.2, broken=0.1, repeated=0.2, contaminated=0.02),
    Quality("homework", 0.40, 0.8, short=0.3, broken=0.1, repeated=0.2),
    Quality("chat", 0.45, 0.8, short=0.3, broken=0.2, repeated=0.2, contaminated=0.02),
    Quality("augmented", 0.50, 0.8, short=0.4, broken=0.2, repeated=0.3),
    Quality("scraped", 0.60, 0.9, short=0.5, broken=0.3, repeated=0.3, contaminated=0.05),
)


def load_embedded(source: EmbeddedSourceConfig, data: DataConfig, teacher: TeacherConfig) -> Source:
    """Makes all rows of a world. Raises `ConfigError` where it has too few problems of the lengths asked for."""
    assert data.sft_rows and data.rl_rows and data.benchmark_rows  # null means all rows, and a world has no end
    world = WORLDS[source.name]
    taken: dict[str, int] = {}
    benchmarks = {}
    for steps in source.benchmark_steps:
        name = f"{world.BENCHMARK}{steps}"
        stream = random.Random(f"{data.seed}-{name}")
        prompts = unseen_prompts(world, stream, [steps, steps], data.benchmark_rows, taken)
        benchmarks[name] = [rl_row(world, prompt, f"{name}-{i}") for i, prompt in enumerate(prompts)]
    rl_stream = random.Random(f"{data.seed}-rl")
    rl_prompts = unseen_prompts(world, rl_stream, source.rl_steps, data.rl_rows, taken)
    rl_rows = [rl_row(world, p, f"rl-{i}") for i, p in enumerate(rl_prompts)]
    try_out(world, source, rl_rows, data.seed)
    sft_stream = random.Random(f"{data.seed}-sft")
    if source.sources == 1:
        prompts = unseen_prompts(world, sft_stream, source.sft_steps, data.sft_rows, taken)
        quality = Quality(source.name, teacher.misconceptions, teacher.error_rate)
        return Source(
            sft_rows(world, prompts, quality, source, str(data.seed)), rl_rows, benchmarks, [source.name]
        )
    known = [row["prompt"][0]["content"] for rows in benchmarks.values() for row in rows]
    rows = []
    for number, quality in enumerate(SOURCES[: source.sources]):
        prompts = unseen_prompts(world, sft_stream, source.sft_steps, data.sft_rows, taken)
        stream = random.Random(f"{data.seed}-{quality.name}")
        spoilt = spoil_prompts(world, prompts, quality, known, stream)
        clean = sft_rows(world, spoilt, quality, source, f"{data.seed}-{number}")
        rows += [spoil_response(row, quality, stream) for row in clean]
    return Source(rows, rl_rows, benchmarks, [quality.name for quality in SOURCES[: source.sources]])


def load_two_worlds(source: TwoWorldsConfig, data: DataConfig, teacher: TeacherConfig) -> Source:
    """Makes all rows of both worlds.

    The ids of RL rows begin with their world's name: a step draws test cases by id, so ids must differ.
    """
    worlds = [load_embedded(world, data, teacher) for world in (source.chain, source.functions)]
    for world, name in zip(worlds, ("chain", "functions"), strict=True):
        for row in world.rl_rows:
            row["id"] = f"{name}-{row['id']}"
    return Source(
        [row for world in worlds for row in world.sft_rows],
        [row for world in worlds for row in world.rl_rows],
        {name: rows for world in worlds for name, rows in world.benchmarks.items()},
        [name for world in worlds for name in world.quality_order],
    )


def unseen_prompts(
    world: Any, stream: random.Random, steps: list[int], count: int, taken: dict[str, int]
) -> list[str]:
    """Draws `count` prompts that are not in `taken` and adds them to it, each with its length.

    `steps` is the least and the greatest length. Raises `ConfigError` where there are too few such problems.
    """
    available = sum(world.count_problems(k) for k in range(steps[0], steps[1] + 1))
    used = sum(steps[0] <= length <= steps[1] for length in taken.values())
    if used + count > available // 2:
        others = f" beside {used} of other sets" if used else ""
        raise ConfigError(
            f"data.*_rows: {count} prompts of {steps[0]} to {steps[1]} steps{others}, but there are only "
            f"{available} problems of that length and half of them are kept in reserve; "
            "ask for fewer or longer ones"
        )
    prompts: list[str] = []
    while len(prompts) < count:
        length = stream.randint(steps[0], steps[1])
        prompt = world.sample_prompt(stream, length)
        if prompt not in taken:
            taken[prompt] = length
            prompts.append(prompt)
    return prompts


def rl_row(world: Any, prompt: str, row_id: str) -> Row:
    """Makes a row in the released Klear format, with an id."""
    return {
        "id": row_id,
        "data_source": world.DATA_SOURCE,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": world.ABILITY,
        "reward_model": {"ground_truth": world.ground_truth(prompt), "style": "rule"},
    }


def try_out(world: Any, source: EmbeddedSourceConfig, rows: list[Row], seed: int) -> None:
    """Spoils the share `faulty_rl_share` of the answers or tests, then notes how a strong model does on each row.

    Sets `completions` and `passed` in the rows themselves.
    """
    stream = random.Random(f"{seed}-faulty")
    strong, answers = world.make_teacher(*STRONG_MODEL, f"strong-{seed}"), random.Random(f"{seed}-completions")
    for row in rows:
        prompt = row["prompt"][0]["content"]
        if stream.random() < source.faulty_rl_share:
            row["reward_model"]["ground_truth"] = world.ground_truth(prompt, stream)
        truth = row["reward_model"]["ground_truth"]
        passed = sum(right(world, strong.answer(prompt, answers), truth) for _ in range(COMPLETIONS))
        row["completions"], row["passed"] = COMPLETIONS, passed


def sft_rows(
    world: Any, prompts: list[str], quality: Quality, source: EmbeddedSourceConfig, seed: str
) -> list[Row]:
    """Makes one row for each prompt: the teacher's answer, whether it is right, and the judge's difficulty.

    The difficulty is the share of the judge's answers to the prompt that are wrong.
    """
    teacher = world.make_teacher(quality.misconceptions, quality.error_rate, seed)
    judge = world.make_teacher(source.judge_misconceptions, source.judge_error_rate, f"judge-{seed}")
    teacher_stream = random.Random(f"{seed}-teacher-answers")
    judge_stream = random.Random(f"{seed}-judge-answers")
    rows = []
    for prompt in prompts:
        response = teacher.answer(prompt.strip(), teacher_stream)
        truth = world.ground_truth(prompt.strip())
        judged = [
            right(world, judge.answer(prompt.strip(), judge_stream), truth) for _ in range(source.judge_samples)
        ]
        rows.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "response": response,
                "source": quality.name,
                "teacher": "misconceptions",
                "difficulty": 1 - sum(judged) / source.judge_samples,
                "correct": right(world, response, truth),
            }
        )
    return rows


def right(world: Any, response: str, ground_truth: str) -> bool:
    """Tells whether a teacher's response is right; teachers always write well-formed ones."""
    return bool(world.verify(response.rpartition("</think>")[2], ground_truth))


def spoil_prompts(
    world: Any, prompts: list[str], quality: Quality, known: list[str], stream: random.Random
) -> list[str]:
    """Gives the prompts the flaws of a source: some become benchmark prompts, repetitions or too short."""
    spoilt: list[str] = []
    for prompt in prompts:
        draw = stream.random()
        if draw < quality.contaminated:
            prompt = stream.choice(known)
        elif draw < quality.contaminated + quality.repeated and spoilt:
            prompt = stream.choice(spoilt).strip() + " " * stream.randint(0, 2)
        elif draw < quality.contaminated + quality.repeated + quality.short:
            prompt = world.sample_prompt(stream, 2)
        spoilt.append(prompt)
    return spoilt


def spoil_response(row: Row, quality: Quality, stream: random.Random) -> Row:
    """Breaks a response with the source's probability: it loses the end of its thought, or its answer.

    A broken response isn't correct.
    """
    if stream.random() >= quality.broken:
        return row
    thought, end, answer = row["response"].partition("</think>")
    broken = thought + answer if stream.random() < 0.5 else thought + end
    return {**row, "response": broken, "correct": False}
