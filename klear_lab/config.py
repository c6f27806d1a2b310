"""The schema: every key with its type, unit, range and meaning.

Hydra composes `conf/` under `Config`, so that a misspelt key or a wrong type fails while composing;
`validation.parse` then checks ranges and contradictions. Groups whose options have different keys are typed by
their `name`: data sources by a dataclass of data_source_config.py, clip methods by their function's signature.
"""

from copy import deepcopy
from dataclasses import MISSING as ABSENT
from dataclasses import Field, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


def later(default: Any) -> Any:
    """Declares a key that runs of older code don't have: while it has its default, no identity contains it.

    `default` is that value, or another declaration with one, as in `later(at_least(1, 8))`.
    """
    metadata = {"later": True}
    if isinstance(default, Field):
        metadata |= default.metadata
        default = default.default if default.default_factory is ABSENT else default.default_factory()
    return field(default_factory=lambda: deepcopy(default), metadata=metadata)


def at_least(bound: float, default: Any = MISSING) -> Any:
    """Declares a number of `bound` or more."""
    return field(default=default, metadata={"must be": f"at least {bound}", "test": lambda v: v >= bound})


def above(bound: float, default: Any = MISSING, may_be_infinite: bool = False) -> Any:
    """Declares a number above `bound`. All numbers but those declared otherwise are finite."""
    metadata = {"must be": f"above {bound}", "test": lambda v: v > bound, "may be infinite": may_be_infinite}
    return field(default=default, metadata=metadata)


def share(default: Any = MISSING) -> Any:
    """Declares a number from 0 to 1."""
    return field(default=default, metadata={"must be": "between 0 and 1", "test": lambda v: 0 <= v <= 1})


def choice(*options: str, default: Any = MISSING) -> Any:
    """Declares one of a few words."""
    words = ", ".join(options)
    return field(default=default, metadata={"must be": f"one of {words}", "test": lambda v: v in options})


def path(default: str) -> Any:
    """Declares a folder's path."""
    return field(default=default, metadata={"must be": "the path of a folder", "test": lambda v: bool(v.strip())})


def wandb_name(default: str | None) -> Any:
    """Declares a name that wandb shows, which takes 128 characters and no empty one."""
    return field(
        default=default,
        metadata={
            "must be": "a name of 1 to 128 characters",
            "test": lambda v: len(v.strip()) > 0 and len(v) <= 128,
        },
    )


def wandb_tags() -> Any:
    """Declares tags, to which wandb gives 64 characters each."""
    return field(
        default_factory=list,
        metadata={
            "must be": "a list of tags of 1 to 64 characters",
            "test": lambda v: all(len(tag.strip()) > 0 and len(tag) <= 64 for tag in v),
        },
    )


def mapping() -> Any:
    """Declares a mapping of names to any values, or null; typed Any, as Hydra can't fill in an empty mapping."""
    return field(default=None, metadata={"must be": "a mapping", "test": lambda v: isinstance(v, dict)})


def betas(first: float, second: float) -> Any:
    """Declares AdamW's two decay rates."""
    return field(
        default_factory=lambda: [first, second],
        metadata={
            "must be": "two numbers in [0, 1)",
            "test": lambda v: len(v) == 2 and all(0 <= b < 1 for b in v),
        },
    )


def steps_range() -> Any:
    """Declares the shortest and the longest problem, in steps."""
    return field(
        default=MISSING,
        metadata={
            "must be": "[shortest, longest] with 2 <= shortest <= longest",
            "test": lambda v: len(v) == 2 and 2 <= v[0] <= v[1],
        },
    )


@dataclass
class EmbeddedSourceConfig:
    """The embedded worlds: klear_lab/worlds/chain.py (math) and functions.py (code)."""

    name: str = MISSING
    sft_steps: list[int] = steps_range()
    rl_steps: list[int] = steps_range()
    # One benchmark, "chain<k>" or "code<k>", for each k listed.
    benchmark_steps: list[int] = field(
        default=MISSING,
        metadata={
            "must be": "different whole numbers from 2 up",
            "test": lambda v: v and min(v) >= 2 and len(set(v)) == len(v),
        },
    )
    judge_misconceptions: float = share()  # of the judge that labels difficulty, as those of a teacher
    judge_error_rate: float = share()
    judge_samples: int = above(0)  # difficulty = 1 - pass rate of this many answers of the judge
    # 1: the teacher writes all SFT rows. More: that many sources of falling quality, each with a teacher of its
    # own and data.sft_rows rows (klear_lab/data/embedded.py).
    sources: int = field(
        default=1, metadata={"must be": "a whole number from 1 to 10", "test": lambda v: 1 <= v <= 10}
    )
    faulty_rl_share: float = share(0.0)  # share of RL rows whose answer or tests are wrong


@dataclass
class TeacherConfig:
    """Who writes the SFT responses of an embedded world with a single source."""

    name: str = MISSING
    misconceptions: float = share()  # share of the facts that it misremembers
    error_rate: float = share()  # how often it writes what it misremembers


@dataclass
class DataConfig:
    """How much of a source is used."""

    seed: int = 0  # draws prompts, misconceptions and traces; the same seed gives the same rows
    sft_rows: int | None = above(0)  # before any step; null: all that files or a data set of the hub have
    rl_rows: int | None = above(0)
    benchmark_rows: int | None = above(0)  # problems in each benchmark
    on_bad_row: str = choice("stop", "skip", default="stop")  # in files and on the hub; skipped rows are counted
    deduplicate: bool = True  # drop exact copies of a query, Unicode forms and white space aside
    decontaminate_ngram: int | None = at_least(
        1, 9
    )  # drop prompts that share n words with a benchmark; null: none
    top_sources: int | None = at_least(1, None)  # keep the N best sources in the source's quality order; null: all
    sft_budget: int | None = at_least(1, None)  # SFT rows to choose, the same for every arm; null: all
    subset: str = choice("k_center", "random", default="k_center")  # how they are chosen
    embedding: str = choice("hashed", "tfidf", "sentence", default="hashed")  # of prompts, for k_center
    filter_rl: bool = True  # keep RL rows that a strong model tried only if enough of its completions pass
    minimum_tests: int = at_least(1, 16)  # drop RL rows of code with fewer test cases
    # Drop RL rows and benchmark problems with longer prompts; null: 4096, of a model from scratch none.
    max_prompt_tokens: int | None = later(above(0, None))


@dataclass
class DifficultyFilterConfig:
    """Keeps SFT rows with minimum <= difficulty <= maximum."""

    name: str = MISSING
    minimum: float = share()
    maximum: float = share()


@dataclass
class CorrectnessConfig:
    """Which SFT rows are kept by whether their response is right."""

    name: str = MISSING
    only_true: bool = MISSING  # drop rows that are wrong or not known to be right


@dataclass
class ModelConfig:
    """A model from scratch (`path` null) or from a folder or the hub."""

    name: str = MISSING
    path: str | None = None  # folder or hub name
    revision: str | None = later(None)  # branch, tag or commit of a hub name; null: the newest when first read
    # Positions of a model from a folder or the hub, instead of those that its config says: Qwen3-8B-Base says
    # 32768, which a prompt and a response of 32768 don't fit in. null: its own.
    positions: int | None = later(at_least(2, None))
    template_arguments: Any = later(mapping())  # of the chat template, e.g. {enable_thinking: true}
    hidden_size: int = above(0, 64)  # this and the next three only for a model from scratch
    layers: int = above(0, 3)
    heads: int = above(0, 2)
    max_positions: int = above(0, 512)
    precision: str = choice("auto", "bfloat16", "float32", default="auto")  # auto: bfloat16 on cuda
    gradient_checkpointing: bool = False  # less memory, about a third more time
    lora_rank: int | None = later(at_least(1, None))  # trains adapters of this rank alone; null: all weights
    lora_alpha: int = later(above(0, 32))  # an adapter's share is this by its rank


@dataclass
class RewardConfig:
    """What a response earns, and how it is verified. A response of another form than one thought is `wrong`."""

    name: str = MISSING
    correct: float = MISSING
    wrong: float = MISSING
    unclosed_think: float | None = None  # without </think>; null: as wrong
    no_think: float | None = None  # with </think> but without <think>; null: as wrong
    uses_verifier: bool = True  # false: every well-formed response earns `correct`, right or wrong
    code: str = choice("soft", "hard", default="soft")  # by the share of tests passed, or for all of them
    max_test_cases: int | None = at_least(1, 16)  # of a program in training, drawn anew each step; null: all
    test_seconds: float = above(0, 5.0)  # for each test of a program; a row's own `timeout` comes first
    test_memory_mb: int = above(0, 512)  # address space of a program
    math_seconds: float = above(0, 10.0)  # to verify an answer of math or reasoning-gym; beyond it is unparsable


@dataclass
class SFTConfig:
    """Supervised fine-tuning on teacher traces; AdamW, cosine schedule."""

    steps: int = at_least(0)
    learning_rate: float = at_least(0)
    seed: int = 0  # weights from scratch and row order; apart from `seed`, so that RL seeds share one SFT
    batch_sequences: int = above(0)
    micro_batch_sequences: int = above(0)  # most sequences in one forward pass: memory, never the gradient
    micro_batch_tokens: int | None = later(at_least(1, None))  # most tokens in one, padding included; null: any
    final_learning_rate: float = share()  # where the cosine ends, as a share of learning_rate
    warmup_steps: int = at_least(0)
    length_curriculum: float = share()  # share of the steps in which the allowed length grows to the full
    adam_betas: list[float] = betas(0.9, 0.98)
    weight_decay: float = at_least(0, 0.01)
    max_grad_norm: float = above(0, 1.0, may_be_infinite=True)  # inf: not clipped
    # Which rows a step has: drawn afresh from all, so that a third is unseen after as many as there are; or in
    # shuffled epochs, each row once before any comes again, as in the paper.
    batches: str = later(choice("draws", "epochs", default="draws"))
    max_tokens: int = above(0)  # longer rows, prompt included, are left out and counted
    log_every: int = above(0, 10)  # steps between lines in metrics.jsonl


@dataclass
class RLConfig:
    """Reinforcement learning: group-normalised advantages, several off-policy mini-batches a rollout."""

    steps: int = at_least(0)  # rollouts; 0 evaluates the SFT checkpoint alone
    learning_rate: float = at_least(0)
    prompts_per_step: int = above(0)  # prompts in a rollout
    # Most groups to train on, of those that are left; null: all. The authors' scripts sample 256 prompts for 128.
    train_prompts: int | None = later(at_least(1, None))
    # How often a step samples prompts_per_step prompts, until train_prompts groups are left.
    max_rollouts: int = later(above(0, 1))
    responses_per_prompt: int = at_least(2)  # group size; a group of one has no advantage
    mini_batch_prompts: int = above(0)  # groups in one optimiser step
    epochs: int = above(0, 1)  # passes over a rollout, with the same mini-batches in the same order
    micro_batch_sequences: int = above(0)  # most sequences in one forward pass: memory, never the gradient
    micro_batch_tokens: int | None = later(at_least(1, None))  # most tokens in one, padding included; null: any
    # Tokens that the loss is a mean of: those of the mini-batch, or as in the authors' code those of each
    # micro-batch, weighted by its sequences; then micro_batch_sequences does change the gradient. sequence: the
    # mean over a response's tokens, then over responses.
    token_mean: str = choice("mini_batch", "micro_batch", "sequence", default="mini_batch")
    divide_by_std: bool = True  # advantages by the standard deviation of their group's rewards
    group_std: str = later(choice("population", "sample", default="population"))  # sample: by n - 1, plus 1e-6
    alpha: float = at_least(0, 0.1)  # weight of the SFT term on correct responses, Eq. 14
    temperature: float = above(0, 1.0)
    drop_zero_advantage: bool = True  # drop groups whose rewards are all equal
    # What is equal in them: the reward, or as in the authors' code whether a response is fully right.
    drop_equal: str = later(choice("reward", "correct", default="reward"))
    mask_overlong: bool = False  # truncated responses carry no loss
    overlong_counts: bool = later(True)  # masked ones count in the mean and std of their group
    # Responses within so many tokens of the limit lose reward, at the limit overlong_penalty; null: none does.
    overlong_buffer: int | None = later(at_least(1, None))
    overlong_penalty: float = later(at_least(0, 1.0))
    max_response_tokens: int = above(0)  # in evaluation times eval.response_budget
    warmup_updates: int = at_least(0, 10)  # optimiser steps of linear warm-up, then constant
    # What they count; rollout: rollouts, and the first has a learning rate of 0, as in the authors' code.
    warmup_unit: str = later(choice("update", "rollout", default="update"))
    adam_betas: list[float] = betas(0.9, 0.999)
    weight_decay: float = at_least(0, 0.1)
    max_grad_norm: float = above(0, 1.0, may_be_infinite=True)  # inf: not clipped
    rollout_batch_sequences: int = above(0)  # sequences sampled at once
    on_nonfinite: str = choice("stop", "skip", default="stop")  # an update whose loss or gradient isn't finite
    # What corrects for a sampler whose probabilities aren't the learner's (rl/mismatch.py), and the bounds of its
    # factor; null: the correction's own.
    mismatch_correction: str = later(choice("none", "tis", "icepop", "sequence_mask", default="none"))
    mismatch_low: float | None = later(at_least(0, None))
    mismatch_high: float | None = later(above(0, None))
    # One phase after the other, e.g. [{ability: math}, {ability: code, steps: 24, learning_rate: 5e-5}]: each
    # trains on the rows of that `ability` (all without it) with a fresh optimizer; its other keys are those above.
    # Empty: a single phase.
    phases: list[Any] = field(default_factory=list)

    @property
    def trained_prompts(self) -> int:
        """Returns the most groups that a step trains on."""
        return self.prompts_per_step if self.train_prompts is None else self.train_prompts


@dataclass
class SamplerConfig:
    """Which program draws responses, in RL and in evaluation. All keys but `name` are vLLM's alone."""

    name: str = later(choice("transformers", "vllm", default="transformers"))
    max_model_len: int | None = later(at_least(2, None))  # tokens of a prompt with its response; null: the model's
    max_num_seqs: int = later(above(0, 256))  # sequences sampled at once
    # Share of the GPU's memory, for weights and cache; no matter on a CPU.
    gpu_memory_utilization: float = later(
        field(default=0.5, metadata={"must be": "above 0 and at most 1", "test": lambda v: 0 < v <= 1})
    )


@dataclass
class EngineConfig:
    """Which program owns the RL loop."""

    name: str = later(choice("local", "trl", "verl", default="local"))
    # With engine=trl the address of `trl vllm-serve`, which then draws the responses; null: `sampler` does.
    vllm_server: str | None = later(None)
    # All further keys are verl's alone. When it samples and trains: on the same GPUs in turn, or in turn while
    # slow responses go on, or on GPUs of their own at the same time.
    trainer_mode: str = later(choice("sync", "colocate_async", "separate_async", default="sync"))
    nodes: int = later(above(0, 1))  # machines that train
    gpus_per_node: int = later(above(0, 8))
    rollout: str = later(choice("vllm", "sglang", default="vllm"))  # which program draws responses
    tensor_parallel: int = later(above(0, 1))  # GPUs that draw a response together
    rollout_nodes: int = later(at_least(0, 0))  # machines that only sample, for separate_async
    rollout_gpus_per_node: int = later(above(0, 8))
    sequence_parallel: int = later(above(0, 1))  # GPUs that train on a response together
    refill_groups: bool = later(False)  # sample further prompts in place of groups whose rewards are all equal


@dataclass
class TokenRecordsConfig:
    """Keeps responses token by token in rollouts/step_<step>.parquet, from the last mini-batch of a step."""

    every: int | None = at_least(1, 12)  # keep every Nth step and the last one; null: none at all
    prompts: int = above(0, 4)  # at most N prompts, with all their responses


@dataclass
class SamplesConfig:
    """Keeps a few responses as text, which changes no result.

    Those of rollouts go to samples.jsonl and to wandb, those of the last evaluation to answers.jsonl.
    """

    every: int | None = later(at_least(1, None))  # keep every Nth step and the last; null: with every evaluation
    responses: int = later(at_least(0, 4))  # how many, of as many prompts as there are; 0: none
    answers: int = later(at_least(0, 2))  # how many of the last evaluation's responses to each prompt; 0: none


@dataclass
class CheckpointConfig:
    """How often a run saves what it would go on from after a kill, in steps."""

    sft_every: int = above(0)
    rl_every: int = above(0)
    # How many stay while a stage trains: 2, since the older one stands in for a damaged one, or 1 to save space.
    keep: int = later(field(default=2, metadata={"must be": "1 or 2", "test": lambda v: v in (1, 2)}))


@dataclass
class EvalConfig:
    """avg@n on every benchmark: before RL, every `every` steps, and after the last one."""

    samples: int = above(0)  # n of avg@n
    every: int = above(0)
    temperature: float = at_least(0, 0.6)  # 0: greedy
    top_p: float = share(0.95)
    response_budget: float = above(0, 1.0)  # tokens a response, as a multiple of rl.max_response_tokens
    batch_sequences: int = above(0)  # sequences sampled at once


@dataclass
class LoggerConfig:
    """Where metrics go beside metrics.jsonl."""

    name: str = MISSING
    # null: what WANDB_MODE and WANDB_DISABLED say, else offline
    wandb_mode: str | None = field(
        default=None,
        metadata={
            "must be": "one of offline, online, disabled, or null",
            "test": lambda v: v in ("offline", "online", "disabled", None),
        },
    )
    project: str | None = field(  # null: WANDB_PROJECT, else klear_lab
        default=None,
        metadata={
            "must be": "a name of 1 to 128 characters without / \\ # ? % :",
            "test": lambda v: len(v.strip()) > 0 and len(v) <= 128 and not set(v) & set("/\\#?%:"),
        },
    )
    entity: str | None = None  # null: WANDB_ENTITY, else the login's own
    tags: list[str] = wandb_tags()  # none: WANDB_TAGS


@dataclass
class Config:
    """One run."""

    data_source: Any = MISSING  # one of data_source_config.DATA_SOURCES
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = MISSING
    difficulty_filter: DifficultyFilterConfig = MISSING
    correctness: CorrectnessConfig = MISSING
    clip_method: dict[str, Any] = MISSING  # name, and the arguments of make_clip_method
    model: ModelConfig = MISSING
    reward: RewardConfig = MISSING
    logger: LoggerConfig = MISSING
    sft: SFTConfig = field(default_factory=SFTConfig)
    rl: RLConfig = field(default_factory=RLConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sampler: SamplerConfig = later(field(default_factory=SamplerConfig))
    engine: EngineConfig = later(field(default_factory=EngineConfig))
    token_records: TokenRecordsConfig = field(default_factory=TokenRecordsConfig)
    samples: SamplesConfig = later(field(default_factory=SamplesConfig))
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    experiment: str | None = later(None)  # set by the group of that name
    scale: str = MISSING  # set by the group of that name: sizes, learning rates, SFT's batches
    launcher: str = MISSING  # set by the group of that name
    # adamw_8bit: states of 8 bits; adamw_paged: 8 bits, moved to main memory when the GPU is full. Both are
    # bitsandbytes' and need `pip install -e '.[gpu]'`.
    optimizer: str = later(choice("adamw", "adamw_8bit", "adamw_paged", default="adamw"))
    seed: int = 0  # RL prompts, their order, and all sampling
    device: str = choice("auto", "cuda", "mps", "cpu", default="auto")
    cpu_threads: int | None = at_least(
        1, None
    )  # null: PyTorch's default; another number may change the last bits of a result
    runs_dir: str = path("runs")
    cache_dir: str = path("${runs_dir}/cache")  # finished stages, shared by all runs
    reward_workers: int | None = at_least(1, None)  # processes that verify; null: one a core
    sandbox: str = choice("auto", "required", default="auto")  # required: bubblewrap or nothing
    progress: str = choice("auto", "live", "lines", "off", default="auto")
    # check: a run that can't fit on its CUDA device by `python -m klear_lab.plan` doesn't start; skip: it tries.
    plan: str = later(choice("check", "skip", default="check"))
    dry_run: bool = later(False)  # engine=verl: writes what verl would be started with, and trains nothing
    sweep_name: str | None = wandb_name(None)  # groups runs; null: named after the overrides that were typed


def value_of(config: Any, key: str) -> Any:
    """Returns the value of a dotted key."""
    value = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


class ConfigError(ValueError):
    """A config that can't be run; the message names each key and what it may be."""


class OutOfMemory(RuntimeError):
    """Says that a device's memory didn't hold a batch, a model or an optimizer; the message says what to lower."""


class VerifierUnavailable(RuntimeError):
    """Answers can't be verified on this machine; the message says why, and what to do."""


def register() -> None:
    """Makes the schema known to Hydra as `schema`, which conf/config.yaml starts from."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    # Hydra copies all its sources for each group that --help lists, this store with the schema among them; what it
    # loads from the store it copies again.
    store.__deepcopy__ = lambda memo: store  # type: ignore[attr-defined]
