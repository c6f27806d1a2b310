"""The paper's recipe: its experiment composes, and a dry run writes every stage with its commands and sources."""

import json
import re
import subprocess

import pandas as pd
import pytest
import yaml
from transformers import AutoConfig

from klear_lab.command_line import CONF
from klear_lab.config import ConfigError, ModelConfig
from klear_lab.engines.verl import files
from klear_lab.engines.verl.commented import file_of, settings_of
from klear_lab.engines.verl.files import has_verl
from klear_lab.engines.verl.start import make_folder
from klear_lab.identity import run_id
from klear_lab.policy.model import load_codec
from support.models import save_model

SOURCE = re.compile(r"\b([Ss]ection \d|[Ss]cripts|[Cc]ode|[Cc]hoice|Eq\. \d|Authors' notes)\b")
PAPER = "experiment=klear_reasoner_8b"
SMALL = """engine=verl dry_run=true engine.nodes=1 engine.gpus_per_node=4 engine.tensor_parallel=1 model.positions=null
data.sft_budget=null data.subset=k_center data.filter_rl=false data.minimum_tests=1 data.decontaminate_ngram=null data.max_prompt_tokens=100
sft.batch_sequences=4 sft.steps=5 sft.max_tokens=120 rl.max_response_tokens=100 rl.micro_batch_tokens=400
sampler.max_model_len=null sampler.max_num_seqs=8 device=auto
~data_source.sources.openthoughts3 ~data_source.sources.acereason_sft""".split()
PHASES = (
    "rl.phases=[{ability: math, steps: 2}, {ability: code, steps: 1, learning_rate: 5e-7, mini_batch_prompts: 32}]"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def released_rows(folder):
    """A few rows in the formats of the released sets; returns the settings that read them."""
    ask = [{"role": "user", "content": "7+5="}]
    truth = {"inputs": ["1\n"], "outputs": ["2\n"]}
    math = [
        {
            "data_source": "math_longcot_math_verify",
            "prompt": [{"role": "user", "content": f"{n}+5="}],
            "ability": "math",
            "reward_model": {"ground_truth": str(n + 5), "style": "rule"},
        }
        for n in range(8)
    ]
    code = [
        {
            "hash": str(n),
            "data_source": "coder1_longcot",
            "prompt": [{"role": "user", "content": f"add {n} to a number"}],
            "ability": "code",
            "reward_model": {"ground_truth": json.dumps(truth), "style": "rule"},
        }
        for n in range(4)
    ]
    sft = [
        {"input": f"{n}*3=", "output": f"<think>{n};3</think>{3 * n}{'0' * 200 * (n == 7)}", "dataset": "taco"}
        for n in range(8)
    ]
    aime = [{"messages": ask, "meta": {"answer": 12, "unique_id": "a"}}]
    sets = {
        "opencodereasoning.sft": write(folder / "sft.jsonl", sft),
        "klear_math.rl": write(folder / "math.jsonl", math),
        "klear_code.rl": write(folder / "code.jsonl", code),
    }
    sources = "data_source.sources"
    settings = [f"{sources}.klear_math.benchmarks.aime24.files=[{write(folder / 'aime.jsonl', aime)}]"]
    for name, file in sets.items():
        settings += [f"{sources}.{name}.{key}=null" for key in ("repository", "split", "config")]
        settings.append(f"{sources}.{name}.files=[{file}]")
    return [*settings, f"~{sources}.klear_code.benchmarks.lcb_v5", f"~{sources}.klear_code.benchmarks.lcb_v6"]


@pytest.fixture
def recipe(run, tmp_path, monkeypatch, request):
    """A function from overrides to the folder `verl/` of a small dry run of the paper's recipe.

    verl isn't asked but in tests that are marked so.
    """
    if request.node.get_closest_marker("verl") is None:
        monkeypatch.setattr(files, "has_verl", lambda: False)
    model = save_model(tmp_path / "model")
    rows = released_rows(tmp_path)

    def start(*overrides):
        return run(PAPER, *SMALL, f"model.path={model}", PHASES, *rows, *overrides).path / "verl"

    return start


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_setting_of_an_experiment_names_its_source(name):
    settings = settings_of(file_of(name))
    assert len(settings) > 50
    assert not [setting.key for setting in settings if not SOURCE.search(setting.comment)]


def test_an_experiment_sets_the_papers_numbers_and_changes_no_run_id_by_its_name(config, composed_config):
    settings = config(PAPER)
    math, code = settings.rl.phases
    assert (math["learning_rate"], math["mini_batch_prompts"]) == (1e-6, 16)
    assert (code["learning_rate"], code["mini_batch_prompts"]) == (5e-7, 32)
    assert (settings.sft.learning_rate, settings.sft.final_learning_rate) == (8e-5, 0.5)
    assert (settings.rl.prompts_per_step, settings.rl.responses_per_prompt) == (128, 8)
    assert run_id(composed_config(PAPER)) == run_id(
        composed_config(PAPER, "experiment=klear_reasoner_8b", "dry_run=true")
    )


def test_a_dry_run_writes_every_stage_with_scripts_that_bash_can_read(recipe):
    place = recipe("engine.nodes=2")
    there = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    stages = {f"{stage}/{file}" for stage in ("sft", "math", "code") for file in ("config.yaml", "train.parquet")}
    scripts = {"sft/sft.sh", "math/train.sh", "code/train.sh", "train.sh", "node.sh", "evaluate.sh"}
    assert stages | scripts | {"README.md", "benchmarks.parquet", "evaluate/math.parquet"} <= there
    for script in scripts:
        text = (place / script).read_text()
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert not re.search(r"@[A-Z]+@", text)


def test_each_phase_has_its_settings_and_starts_from_the_one_before(recipe):
    place = recipe()
    math, code = (yaml.safe_load((place / name / "config.yaml").read_text()) for name in ("math", "code"))
    actor = [config["actor_rollout_ref"]["actor"] for config in (math, code)]
    assert [part["optim"]["lr"] for part in actor] == [1e-6, 5e-7]
    assert [part["ppo_mini_batch_size"] for part in actor] == [16, 32]
    assert math["actor_rollout_ref"]["model"]["path"] == str(place / "start")
    before = place / "math" / "checkpoints" / "global_step_2" / "actor" / "huggingface"
    assert code["actor_rollout_ref"]["model"]["path"] == str(before)
    assert math["trainer"]["val_before_train"] and not code["trainer"]["val_before_train"]
    for name, steps in (("math", 2), ("code", 1)):
        table = pd.read_parquet(place / name / "train.parquet")
        assert {*table["ability"]} == {name} and len(table) == 128 * steps


def test_sft_is_written_as_verl_trains_it(recipe):
    place = recipe() / "sft"
    config, table = yaml.safe_load((place / "config.yaml").read_text()), pd.read_parquet(place / "train.parquet")
    assert len(table) == 7  # one response is too long
    assert [turn["role"] for turn in table["messages"][0]] == ["user", "assistant"]
    assert (config["optim"]["lr"], config["optim"]["min_lr_ratio"]) == (8e-5, 0.5)
    assert (config["trainer"]["total_epochs"], config["trainer"]["total_training_steps"]) == (1, 5)


def test_a_batch_of_sft_that_gpus_cannot_share_is_refused(recipe):
    with pytest.raises(ConfigError, match="sft.batch_sequences=6: engine=verl shares a batch among 4 GPUs"):
        recipe("sft.batch_sequences=6", "engine.sequence_parallel=1")


def test_the_readme_has_every_setting_and_says_what_this_run_changes(recipe):
    text = (recipe() / "README.md").read_text()
    for setting in settings_of(file_of("klear_reasoner_8b")):
        assert f"| `{setting.key.removeprefix('override /')}` |" in text
    assert "| `sft.steps` | `5` |" in text and "**Changed in this run; the experiment has 11718.**" in text
    assert "| `rl.alpha` | `0.1` | section 4.1 and 3.2.3, Eq. 14. Code prints it as positive_loss_coeff |" in text
    assert text.index("sft/sft.sh") < text.index("train.sh") < text.index("evaluate.sh")


def test_evaluation_takes_the_last_phases_weights_and_the_papers_samples(recipe):
    text = (recipe() / "evaluate.sh").read_text()
    assert "code/checkpoints/global_step_1/actor/huggingface" in text
    assert "avg@64 of aime24" in text and 'evaluate math 64 "$@"' in text


def test_a_start_folder_names_our_stop_tokens_and_links_the_weights(tmp_path):
    source = save_model(tmp_path / "trained")
    make_folder(source, tmp_path / "start")
    generation = json.loads((tmp_path / "start" / "generation_config.json").read_text())
    codec, _ = load_codec(ModelConfig(name="path", path=str(source)))
    assert {*codec.stop_token_ids} <= {*generation["eos_token_id"]}
    assert (tmp_path / "start" / "model.safetensors").resolve() == (source / "model.safetensors").resolve()


def test_yarn_stretches_the_positions(policy, tmp_path):
    policy.save(tmp_path / "trained")
    make_folder(tmp_path / "trained", tmp_path / "long", yarn=2.5)
    config = AutoConfig.from_pretrained(tmp_path / "long")
    assert config.max_position_embeddings == 81920
    assert (config.rope_parameters["rope_type"], config.rope_parameters["factor"]) == ("yarn", 2.5)
    assert (
        config.rope_parameters["rope_theta"]
        == AutoConfig.from_pretrained(tmp_path / "trained").rope_parameters["rope_theta"]
    )


@pytest.mark.verl
@pytest.mark.skipif(not has_verl(), reason="verl has an environment of its own: make test-verl")
def test_verl_accepts_every_stage_and_reads_our_sft_rows(recipe, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)  # only this process has the tests' own
    place = recipe()
    for stage in ("sft", "math", "code"):
        assert (place / stage / "complete.yaml").exists()
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.trainer.sft_trainer import create_sft_dataset
    from verl.utils.dataset.dataset_utils import SFTTensorCollator

    config = OmegaConf.load(place / "sft" / "complete.yaml")
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    rows = create_sft_dataset(config.data.train_files, config.data, tokenizer, None)
    batch = SFTTensorCollator(config.data.pad_mode)([rows[0], rows[1]])
    learned = {tokenizer.decode(row["input_ids"][row["loss_mask"].bool()]) for row in rows}
    assert len(rows) == 5 * 4 and learned == {f"<think>{n};3</think>{3 * n}<|im_end|>" for n in range(7)}
    assert batch["input_ids"].is_nested
