"""The config: every file composes, wrong settings are named, what makes a run's identity."""

import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf

from analysis.runs.comparable import flattened
from klear_lab.config import ConfigError, at_least, later, register
from klear_lab.contradictions import out_of_range
from klear_lab.identity import identity_of, run_id
from klear_lab.validation import explain, parse

ROOT = Path(__file__).parents[2]
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}" for path in (ROOT / "conf").glob("*/*.yaml") if path.parent.name != "hydra"
)
SWEEPS = sorted(f"sweep={path.stem}" for path in (ROOT / "sweeps").glob("*.yaml"))
# What an option cannot do without. Most data sources have either SFT rows or RL rows.
SFT_ONLY = ("acereason_sft", "opencodereasoning", "openthoughts3")
RL_ONLY = (
    *("apps", "codeforces", "deepscaler", "klear_code", "klear_math", "numinamath_1_5", "skywork_or1", "taco"),
)
NEEDS = {
    "model=path": ["model.path=somewhere"],
    "clip_method=custom": [f"clip_method.function={ROOT / 'tests/support/own_clip_methods.py'}:unit"],
    "reward=format_only": ["rl.alpha=0"],
    "data_source=file": ["data_source.sft.files=[a.jsonl]", "data_source.rl.files=[b.jsonl]"],
    **{f"data_source={name}": ["rl.steps=0"] for name in SFT_ONLY},
    **{f"data_source={name}": ["sft.steps=0"] for name in RL_ONLY},
}


@pytest.mark.parametrize("option", sorted({*OPTIONS, *SWEEPS}))
def test_every_option_composes_and_parses(composed_config, option):
    if option == "launcher=ray" and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("launcher=ray isn't installed here; docs/running.md says how")
    composed = composed_config(option, *NEEDS.get(option, []))
    untyped = OmegaConf.create(OmegaConf.to_container(composed))  # as read from a file
    assert parse(composed) == parse(untyped)


def test_the_schema_is_copied_for_no_list_of_options_and_no_config_changes_it():
    register()
    store = ConfigStore.instance()
    before = OmegaConf.to_yaml(store.load("schema.yaml").node)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("config", overrides=["rl.steps=3"]).rl.steps == 3
        assert compose("config").rl.steps != 3
    assert copy.deepcopy(store) is store and OmegaConf.to_yaml(store.load("schema.yaml").node) == before


def test_every_group_of_the_design_is_there():
    groups = {option.split("=")[0] for option in OPTIONS}
    wanted = "data_source difficulty_filter clip_method model reward scale logger launcher"
    assert groups >= set(wanted.split())


def test_every_sweep_says_its_command_and_its_question():
    for path in (ROOT / "sweeps").glob("*.yaml"):
        text = path.read_text()
        assert f"python -m klear_lab.run sweep={path.stem} " in text
        assert "Question:" in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rl.steps=-1"], "rl.steps=-1: must be at least 0"),
        (
            ["rl.mini_batch_prompts=3"],
            "rl.mini_batch_prompts=3: must divide rl.prompts_per_step=4, so one of 1, 2, 4",
        ),
        (["sft.batches=epochs"], "sft.length_curriculum=0.5: lets only short rows in at first"),
        (["rl.train_prompts=3"], "rl.mini_batch_prompts=2: must divide rl.train_prompts=3, so one of 1, 3"),
        (["rl.train_prompts=8"], "rl.train_prompts=8: must be at most the 4 prompts that a step samples"),
        (
            ["rl.max_rollouts=2"],
            "rl.max_rollouts=2: must be 1, or rl.train_prompts a number of groups to wait for",
        ),
        (["rl.overlong_counts=false"], "rl.overlong_counts=false: truncated responses are only left out with rl."),
        (
            ["rl.drop_equal=correct"],
            "rl.drop_equal=correct: no group is dropped with rl.drop_zero_advantage=false",
        ),
        (
            ["rl.token_mean=micro_batch", "rl.micro_batch_tokens=100"],
            "rl.micro_batch_tokens=100: must be null with rl.token_mean=micro_batch",
        ),
        (
            ["rl.group_std=sample", "rl.divide_by_std=false"],
            "rl.group_std=sample: nothing is divided by it with rl.divide_by_std=false",
        ),
        (["rl.overlong_penalty=2"], "rl.overlong_penalty=2.0: acts within rl.overlong_buffer, which is null"),
        (["rl.overlong_buffer=999"], "rl.overlong_buffer=999: must be at most rl.max_response_tokens="),
        (["rl.warmup_unit=rollout", "rl.warmup_updates=0"], "there is no warm-up with rl.warmup_updates=0"),
        (["reward=format_only"], "rl.alpha=0.1: the SFT term needs to know which responses are correct"),
        (["rl.responses_per_prompt=1"], "rl.responses_per_prompt=1: must be at least 2"),
        (["rl.temperature=0"], "rl.temperature=0.0: must be above 0"),
        (["eval.top_p=1.5"], "eval.top_p=1.5: must be between 0 and 1"),
        (["cpu_threads=0"], "cpu_threads=0: must be at least 1"),
        (["device=tpu"], "device=tpu: must be one of auto, cuda, mps, cpu"),
        (["model=path"], "model.path=null: must be a folder or a hub name"),
        (
            ["model.revision=main"],
            "model.revision=main: only a hub name has one; must be null with a model from scratch",
        ),
        (
            ["model=path", "model.path=/", "model.revision=main"],
            "model.revision=main: only a hub name has one; must be null with the folder model.path=/",
        ),
        (
            ["model.template_arguments={a: 1}"],
            "model.template_arguments={'a': 1}: must be null for a model from scratch",
        ),
        (
            ["model=path", "model.path=x", "model.template_arguments={tokenize: true}"],
            "model.template_arguments.tokenize: is no argument of the template",
        ),
        (["model=path", "model.path=x", "model.template_arguments=3"], "template_arguments=3: must be a mapping"),
        (["model.heads=3"], "model.heads=3: model.hidden_size=64 must be an even multiple of it"),
        (["model.hidden_size=14"], "model.heads=2: model.hidden_size=14 must be an even multiple of it"),
        (["model.hidden_size=7", "model.heads=7"], "model.heads=7: model.hidden_size=7 must be an even multiple"),
        (["clip_method.eps_low=2"], "clip_method.eps_low=2: must be at least 0 and below 1"),
        (["clip_method.eps_low=abc"], "clip_method.eps_low=abc: must be a number"),
        (["+clip_method.beta1=1"], "clip_method.beta1: unknown; gppo takes eps_low, eps_high, dual_clip"),
        (["clip_method.name=foo"], "clip_method.name=foo: must be one of aspo"),
        (["data_source.name=moon"], "data_source.name=moon: must be one of chain"),
        (["+data_source.foo=1"], "data_source.foo: unknown; one of benchmark_steps"),
        (["data_source.rl_steps=[8,4]"], "must be .shortest, longest. with 2 <= shortest"),
        (["data.on_bad_row=drop"], "data.on_bad_row=drop: must be one of stop, skip"),
        (["data.rl_rows=null"], "data.rl_rows=null: must be a number with data_source=chain"),
        (["+foo=1"], "foo: there is no such key; one of data_source, data, "),
        (["data.rl_rows=0"], "data.rl_rows=0: must be above 0"),
        (["data_source.judge_samples=abc"], "data_source.judge_samples: Value 'abc'"),
        (["rl.adam_betas=[0.9]"], "rl.adam_betas=.0.9.: must be two numbers"),
        (["sampler.name=trl"], "sampler.name=trl: must be one of transformers, vllm"),
        (["sampler.max_num_seqs=3"], "sampler.max_num_seqs=3: only vLLM has it; set sampler=vllm"),
        (
            ["sampler=vllm", "sampler.gpu_memory_utilization=0"],
            "sampler.gpu_memory_utilization=0.0: must be above 0",
        ),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(composed_config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        parse(composed_config(*overrides))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["+data_source.benchmarks.mine=[a.jsonl]"], "benchmarks.mine=['a.jsonl']: must be a mapping with keys such"),
        (["+data_source.benchmarks.mine={files: 3}"], "benchmarks.mine.files=3: must be a list, so write [3]"),
        (["data_source.benchmarks=null"], "benchmarks=null: must be a mapping"),
        (["data_source.rl=5"], "rl=5: must be a mapping with keys such as files"),
        (["data_source.rl.columns=5"], "rl.columns=5: must be a mapping"),
        (["data_source.rl.files=a.jsonl"], "rl.files=a.jsonl: must be a list, so write [a.jsonl]"),
        (["data_source.rl.files=[[a]]"], "rl.files[0]=['a']: must be a single value"),
        (["data_source.sft.split={a: 1}"], "sft.split={'a': 1}: must be a single value"),
        (["data_source=reasoning_gym", "data_source.tasks=[5]"], "tasks[0]=5: must be a mapping with keys such as task"),
        (["data_source=reasoning_gym", "data_source.tasks=[{task: [a]}]"], "tasks[0].task=['a']: must be a single"),
        (["data_source=chain", "data_source.rl_steps=5"], "rl_steps=5: must be a list, so write [5]"),
        (["data_source=chain_and_functions", "data_source.chain=5"], "chain=5: must be a mapping"),
    ],
)  # fmt: skip
def test_a_list_or_mapping_out_of_place_in_a_data_source_is_named_with_its_whole_key(
    composed_config, overrides, line
):
    with pytest.raises(ConfigError) as error:
        parse(composed_config("data_source=file", *overrides))
    assert str(error.value).startswith(f"data_source.{line}")


FILE = ["data_source=file", "data_source.sft.files=[a.jsonl]", "data_source.rl.files=[b.jsonl]"]
PATH = ["model=path", "model.path=somewhere"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.subset=random"], "data.subset=random: says how data.sft_budget rows are chosen, which is null"),
        (["data.embedding=tfidf"], "data.embedding=tfidf: .* must be hashed, or data.sft_budget a number"),
        (["data.top_sources=1"], "data.top_sources=1: data_source=chain makes rows of 1 source, all of which"),
        (
            ["data.top_sources=4", "data_source.sources=3"],
            "data.top_sources=4: .* rows of 3 sources, all of which",
        ),
        (["data.top_sources=3", "data_source=chain_and_functions"], "data.top_sources=3: .* rows of 2 sources"),
        (
            ["teacher=weak", *FILE],
            "teacher=weak .*: only writes for an embedded world .* brings its rows; must be",
        ),
        (["teacher.error_rate=0.6", *FILE], "teacher=medium .misconceptions 0.2, error_rate 0.6.: only writes"),
        (["teacher=strong", "data_source=reasoning_gym", "sft.steps=0"], "teacher=strong .* brings its rows"),
        (["teacher=strong", "data_source=klear_reasoner"], "teacher=strong .* data_source=joined brings its rows"),
        (["teacher=strong", "data_source.sources=2"], "teacher=strong .* lets each of its sources have its own"),
        (
            ["model.lora_alpha=16"],
            "model.lora_alpha=16: only adapters have it; must be 32 with model.lora_rank=null",
        ),
        (
            [*PATH, "model.hidden_size=128"],
            "model.hidden_size=128: is a size of a model from scratch, .* must be 64",
        ),
        ([*PATH, "model.layers=4"], "model.layers=4: is a size of a model from scratch"),
        ([*PATH, "model.heads=4"], "model.heads=4: is a size of a model from scratch"),
        ([*PATH, "model.max_positions=99"], "model.max_positions=99: is a size of a model from scratch"),
        (
            ["data_source=deepscaler", "sft.steps=0", "data.top_sources=2"],
            "data.top_sources=2: must be null, because data_source.sft names neither files nor a repository",
        ),
        (
            ["data_source=deepscaler", "sft.steps=0", "difficulty_filter=hard"],
            "difficulty_filter=hard: must be over",
        ),
        (
            ["data_source=deepscaler", "sft.steps=0", "correctness=only_true"],
            "correctness=only_true: must be mixed",
        ),
    ],
)
def test_a_key_that_nothing_would_read_is_refused(composed_config, overrides, words):
    with pytest.raises(ConfigError, match=words) as error:
        parse(composed_config(*overrides))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.subset=random", "data.embedding=tfidf", "data.sft_budget=20"],
        ["data.top_sources=3", "data_source.sources=3"],
        ["data.top_sources=1", "data_source=chain_and_functions"],
        ["teacher=weak", "data_source=chain_and_functions", "data_source.chain.sources=2"],
        ["data.top_sources=2", "data_source.quality_order=[a,b]", *FILE],  # other sources may stand in the file
        ["model.lora_alpha=16", "model.lora_rank=4"],
        ["model.hidden_size=32", "model.max_positions=256"],
        [*PATH, "model.hidden_size=64"],
    ],
)
def test_a_key_that_something_reads_is_taken(composed_config, overrides):
    parse(composed_config(*overrides))


@pytest.mark.parametrize(("correct", "wrong"), [(-1, -1), (0, 0.5), (-2, -1)])
def test_a_right_answer_must_earn_more_than_a_wrong_one(composed_config, correct, wrong):
    said = f"reward.correct={float(correct)}: must be above reward.wrong={float(wrong)}"
    with pytest.raises(ConfigError, match=said):
        parse(composed_config(f"reward.correct={correct}", f"reward.wrong={wrong}"))
    parse(composed_config("reward.correct=0.1", "reward.wrong=0"))


@pytest.mark.parametrize("sweep", ["table3", "table4", "table5"])
def test_the_ends_of_the_axes_of_our_sweeps_are_taken(composed_config, sweep):
    params = yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    axes = {key: str(values).split(",") for key, values in params.items()}
    for end in (0, -1):
        parse(composed_config(f"sweep={sweep}", *(f"{key}={values[end]}" for key, values in axes.items())))


def test_all_problems_are_named_at_once(composed_config):
    with pytest.raises(ConfigError) as error:
        parse(composed_config("rl.steps=-1", "sft.steps=-2", "eval.samples=0"))
    assert str(error.value).count("must be") == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "rl.stpes=3",
            "rl.stpes: there is no such key; did you mean rl.steps?\nThe keys of rl: adam_betas, alpha",
        ),
        (
            "clip_method.eps_hgh=3",
            "did you mean clip_method.eps_high?\nThe keys of clip_method: dual_clip, eps_high",
        ),
        ("sede=1", "sede: there is no such key; did you mean seed?\nThe keys: cache_dir, checkpoint, clip_method"),
        ("rl.steps=abc", "Value 'abc' of type 'str' could not be converted to Integer\n    full_key: rl.steps"),
        ("sweep=figur2", "Could not find 'sweep/figur2'"),
        ("clip_method=gpo", "Available options in 'clip_method':\n\taspo"),
    ],
)
def test_what_hydra_refuses_is_explained(composed_config, override, words):
    with pytest.raises((ConfigCompositionException, HydraException)) as error:
        composed_config(override)
    assert words in explain(error.value)


# What each rung of DAPO's ladder adds to the one before it.
ADDS = {
    "dapo_1_overlong_filtering": {"rl.mask_overlong": True},
    "dapo_2_clip_higher": {"clip_method.name": "clip_higher", "clip_method.eps_high": 0.28},
    "dapo_3_soft_overlong_punishment": {"rl.overlong_buffer": 9},
    "dapo_4_token_level_loss": {"rl.token_mean": "mini_batch"},
    "dapo_5_dynamic_sampling": {
        "rl.drop_zero_advantage": True,
        "rl.drop_equal": "correct",
        "rl.train_prompts": 32,
        "rl.max_rollouts": 8,
    },
}


def test_each_rung_of_a_ladder_adds_what_it_says_to_the_one_before_and_changes_nothing_else():
    params = yaml.safe_load((ROOT / "sweeps" / "dapo.yaml").read_text())["hydra"]["sweeper"]["params"]
    rungs = params["ladder"].split(",")
    assert rungs == sorted(path.stem for path in (ROOT / "conf" / "ladder").glob("dapo_*.yaml"))
    assert rungs[1:] == [*ADDS]
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = [compose("config", overrides=["sweep=dapo", f"ladder={rung}"]) for rung in rungs]
    flat = [flattened(OmegaConf.to_container(one, resolve=True)) for one in composed]
    for rung, before, after in zip(rungs[1:], flat, flat[1:], strict=False):
        assert {key: value for key, value in after.items() if before[key] != value} == ADDS[rung]
    naive = {"rl.alpha": 0.0, "rl.token_mean": "sequence", "rl.mask_overlong": False, "rl.max_rollouts": 1}
    naive |= {"rl.drop_zero_advantage": False, "clip_method.eps_high": 0.2, "clip_method.name": "grpo"}
    assert naive.items() <= flat[0].items() and flat[0]["rl.overlong_buffer"] is None


def test_identity_is_the_content_and_ignores_what_cannot_change_a_result(composed_config):
    base = run_id(composed_config())
    same = [
        "logger=offline",
        "runs_dir=/elsewhere",
        "launcher=joblib",
        "progress=lines",
        "sweep=figure2",
        "checkpoint.rl_every=7",
        "samples.every=1",
        "sampler=transformers",
    ]
    assert {run_id(composed_config(o)) for o in same} == {base}
    other = ["seed=1", "clip_method=cispo", "rl.learning_rate=3e-4", "data.seed=1", "clip_method.dual_clip=3"]
    other += ["sampler=vllm"]
    assert len({run_id(composed_config(o)) for o in other} | {base}) == len(other) + 1


@pytest.mark.parametrize(
    ("overrides", "identity"),
    [
        ([], "71b3ad03cb97"),
        (["clip_method=cispo"], "ca6dc3b33dca"),
        (["scale=smoke"], "fdf35b1a1745"),
        (["data_source=reasoning_gym", "sft.steps=0"], "ff371f0747b7"),
    ],
)
def test_new_keys_change_no_run_id(overrides, identity):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert run_id(compose("config", overrides=overrides)) == identity


@dataclass
class Inner:
    """A part with a key of today and two of tomorrow."""

    today: int = 1
    tomorrow: int | None = later(at_least(1, None))
    arguments: dict[str, Any] = later({})


@dataclass
class Outer:
    """Parts that are there, may be there, are many by name, and were added as a whole."""

    one: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    many: dict[str, Inner] = field(default_factory=dict)
    added: Inner = later(Inner())


def test_a_later_key_counts_only_while_it_is_not_its_default():
    assert identity_of(Outer()) == {"one": {"today": 1}, "maybe": None, "many": {}}
    full = Outer(Inner(2, 3), Inner(arguments={"a": 1}), {"today": Inner(4)}, Inner(5))
    assert identity_of(full) == {
        "one": {"today": 2, "tomorrow": 3},
        "maybe": {"today": 1, "arguments": {"a": 1}},
        "many": {"today": {"today": 4}},
        "added": {"today": 5},
    }
    assert out_of_range(Outer(Inner(tomorrow=0))) == ["one.tomorrow=0: must be at least 1"]
    assert Inner().arguments is not Inner().arguments


def test_keys_that_ablations_name_are_there(composed_config):
    keys = (
        "seed rl.steps rl.prompts_per_step rl.responses_per_prompt rl.mini_batch_prompts rl.micro_batch_sequences "
        "rl.learning_rate rl.alpha rl.temperature rl.drop_zero_advantage rl.mask_overlong rl.max_response_tokens "
        "sft.steps sft.learning_rate sft.seed eval.samples runs_dir"
    )
    composed = composed_config()
    assert all(OmegaConf.select(composed, key) is not None for key in keys.split())


def test_defaults_are_the_papers(composed_config):
    composed = composed_config("scale=small")
    assert (composed.clip_method.eps_low, composed.clip_method.eps_high) == (0.2, 0.28)
    assert composed.clip_method.dual_clip is None
    rl = composed.rl
    assert (rl.alpha, rl.temperature, rl.max_grad_norm, rl.weight_decay) == (0.1, 1.0, 1.0, 0.1)
    assert (rl.drop_zero_advantage, rl.mask_overlong, rl.warmup_updates) == (True, False, 10)
    assert rl.prompts_per_step // rl.mini_batch_prompts == 8
    assert (composed.eval.temperature, composed.eval.top_p) == (0.6, 0.95)
