"""Model folders: sound ones load and come back, broken ones are named before anything trains."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.plan.model_size import read_model_config
from klear_lab.policy.folder_checks import encoding_problem, position_limit
from klear_lab.policy.forward_checks import forward_problem, silence_dropout
from klear_lab.policy.model import build_tiny, character_tokenizer, load_codec, load_policy
from support.architectures import HEADS, SOUND, UNSOUND, USUAL, save_folder, tiny_model

CPU = torch.device("cpu")
ASKED = [{"role": "user", "content": "7+5="}]


def path_config(path, **keys):
    return ModelConfig(name="path", path=str(path), **keys)


@pytest.mark.parametrize("kind", SOUND)
def test_a_folder_of_many_architectures_loads_saves_and_comes_back(tmp_path, kind):
    policy = load_policy(path_config(save_folder(tmp_path / "first", kind)), CPU, seed=0)
    policy.save(tmp_path / "second")
    again = load_policy(path_config(tmp_path / "second"), CPU, seed=0)
    for (name, a), (_, b) in zip(policy.model.state_dict().items(), again.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert again.model.training
    assert again.codec.encode_response(ASKED, "12") == policy.codec.encode_response(ASKED, "12")
    tokens = torch.tensor([policy.codec.encode_prompt(ASKED)])
    first, second, other = (p.model(tokens, use_cache=False).logits for p in (policy, policy, again))
    assert torch.equal(first, second)
    assert torch.equal(first, other)


@pytest.mark.parametrize("kind", UNSOUND)
def test_a_model_that_cannot_be_sampled_and_trained_alike_is_refused(tmp_path, kind):
    sizes, words = UNSOUND[kind]
    with pytest.raises(ConfigError, match=f"model.path={tmp_path}: .*{words}"):
        load_policy(path_config(save_folder(tmp_path, kind, **sizes)), CPU, seed=0)


@pytest.mark.parametrize(("kind", "words"), [("mamba", "it fills none"), ("lfm2", "layers other than attention")])
def test_running_a_model_shows_layers_that_its_config_might_not_name(kind, words):
    problem = forward_problem(tiny_model(kind, **UNSOUND[kind][0]))
    assert "it can't be sampled with a key-value cache" in problem and words in problem


class Noisy(torch.nn.Module):
    """Noise in training mode that no rate switches off."""

    def forward(self, x):
        return x + 0.01 * torch.randn_like(x) if self.training else x


def test_noise_that_no_rate_switches_off_is_refused():
    model = tiny_model("llama", **USUAL)
    model.model.norm = torch.nn.Sequential(model.model.norm, Noisy())
    assert "two passes in training mode differ" in forward_problem(model)


def test_a_layer_that_behaves_otherwise_in_training_is_refused():
    class Shifted(torch.nn.Module):
        def forward(self, x):
            return 2 * x if self.training else x

    model = tiny_model("llama", **USUAL)
    model.model.layers[0].mlp = torch.nn.Sequential(model.model.layers[0].mlp, Shifted())
    assert "other logits in training mode than in sampling" in forward_problem(model)


def test_the_checks_leave_random_numbers_weights_and_mode_as_they_were():
    model = tiny_model("gpt2", **SOUND["gpt2"])  # with dropout, which draws
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert "differ" in forward_problem(model.train())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    silence_dropout(model)
    assert forward_problem(model.eval()) is None
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_building_the_tiny_model_draws_as_many_random_numbers_as_before_there_were_checks():
    torch.manual_seed(0)
    build_tiny(ModelConfig(name="tiny", hidden_size=16, layers=1), CPU, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    tiny = build_tiny(ModelConfig(name="tiny", hidden_size=16, layers=1), CPU, seed=3).model
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(3)
    type(tiny)(tiny.config)
    assert torch.equal(state, torch.get_rng_state())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sound folder, to be broken."""
    return save_folder(tmp_path_factory.mktemp("whole"), "llama")


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def edit(file, **changes):
    content = json.loads(file.read_text())
    content |= changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def template(folder, text):
    (folder / "chat_template.jinja").write_text(text)


def cut_short(folder, share=0.5):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def keep_only(folder, name):
    content = (folder / "model.safetensors").read_bytes()
    empty(folder)
    (folder / name).write_bytes(content)


def shard(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def add_tokens(folder):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["[one]", "[two]"])
    tokenizer.save_pretrained(folder)


def without_eos(folder):
    edit(folder / "tokenizer_config.json", eos_token=None)


BROKEN = {
    "empty": (empty, "not a model folder: it is empty"),
    "no config": (lambda f: (f / "config.json").unlink(), "not a model folder: it has no config.json"),
    "config that isn't JSON": (lambda f: (f / "config.json").write_text("{"), "its config.json can't be read"),
    "config that is no object": (
        lambda f: (f / "config.json").write_text("[]"),
        "its config.json holds no object; download",
    ),
    "architecture that is no name": (
        lambda f: edit(f / "config.json", model_type=["llama"]),
        "names no model_type",
    ),
    "config without architecture": (lambda f: edit(f / "config.json", model_type=None), "names no model_type"),
    "unknown architecture": (lambda f: edit(f / "config.json", model_type="grok9"), "knows no model_type=grok9"),
    "code of its own": (
        lambda f: edit(f / "config.json", model_type="mine", auto_map={"AutoConfig": "configuration_mine.Mine"}),
        "needs code of its own .trust_remote_code., which isn't run here",
    ),
    "encoder and decoder": (
        lambda f: edit(f / "config.json", model_type="t5", is_encoder_decoder=True),
        "an encoder-decoder model .t5.",
    ),
    "no language model": (
        lambda f: edit(f / "config.json", model_type="vit"),
        "no causal language model of model_ty",
    ),
    "quantised": (
        lambda f: edit(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "its weights are quantised .gptq., and can't be trained",
    ),
    "nonsense in the config": (
        lambda f: edit(f / "config.json", num_attention_heads="many"),
        "num_attention_heads",
    ),
    "heads that don't divide": (
        lambda f: edit(f / "config.json", num_attention_heads=3),
        "num_attention_heads|hidden",
    ),
    "a config that transformers doesn't save": (
        lambda f: edit(f / "config.json", output_attentions=True),
        "couldn't be saved after training .*validate_output_attentions.*; mend its config.json",
    ),
    "int8 weights": (
        lambda f: edit_weights(f, lambda w: w.update({k: v.to(torch.int8) for k, v in w.items() if "proj" in k})),
        "model.safetensors holds I8 numbers for model.layers.0.mlp.down_proj.weight, .* and 11 more, and can't be tr",
    ),
    "float8 weights": (
        lambda f: edit_weights(
            f, lambda w: w.update({"lm_head.weight": w["lm_head.weight"].to(torch.float8_e4m3fn)})
        ),
        "holds F8_E4M3 numbers for lm_head.weight",
    ),
    "adapter": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
        "holds a PEFT adapter, not a model; merge it into its base model",
    ),
    "GGUF": (lambda f: keep_only(f, "model-Q4.gguf"), "GGUF files can't be trained"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights; expected model.safetensors"),
    "missing shard": (shard, "model-00002-of-000.. of weights|model-00002-of-.* missing, of"),
    "index without shards": (
        lambda f: [shard(f), edit(f / "model.safetensors.index.json", weight_map=["lm_head.weight"])],
        "model.safetensors.index.json: weight_map names no files; download it again",
    ),
    "weights cut short": (cut_short, "model.safetensors is damaged or cut short"),
    "empty weights": (lambda f: cut_short(f, 0), "model.safetensors is damaged or cut short"),
    "pointer of Git LFS": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "is a pointer of Git LFS, not the weights; run `git lfs pull`",
    ),
    "weights of a layer missing": (
        lambda f: edit_weights(f, lambda w: w.pop("model.layers.1.mlp.up_proj.weight")),
        "has no weights for model.layers.1.mlp.up_proj.weight, which would be random",
    ),
    "weights of another size": (
        lambda f: edit(f / "config.json", intermediate_size=64),
        r"have the shape .*48.*, where config.json asks for .*64.*6 such",
    ),
    "more layers than weights": (
        lambda f: edit(f / "config.json", num_hidden_layers=3),
        "has no weights for model.lay",
    ),
    "NaN": (
        lambda f: edit_weights(f, lambda w: w["model.norm.weight"].fill_(float("nan"))),
        "has weights that are NaN or infinite, in model.norm.weight; use an earlier checkpoint",
    ),
    "tokens without embedding": (add_tokens, r"has \[two\], \[one\] beyond the 101 rows of its embedding"),
    "stop token by its text": (
        lambda f: edit(f / "generation_config.json", eos_token_id="2"),
        "its generation_config.json has eos_token_id='2'; must be a token's number",
    ),
    "stop token by its text in a list": (
        lambda f: edit(f / "generation_config.json", eos_token_id=[2, "</s>"]),
        "its generation_config.json has eos_token_id=.2, '</s>'.; must be a token's number",
    ),
    "tokenizer of an unknown kind": (
        lambda f: edit(f / "tokenizer.json", model={"type": "later"}),
        "its tokenizer can't be read .Exception: data did not match any variant",
    ),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "its tokenizer can't be read",
    ),
    "tokenizer that brings another text back": (
        lambda f: edit(
            f / "tokenizer.json", decoder={"type": "Replace", "pattern": {"String": "h"}, "content": "."}
        ),
        "its tokenizer makes the text 'w.at is .*' of 'what is 2 . 3 .'",
    ),
    "tokenizer cut short": (
        lambda f: (f / "tokenizer.json").write_text('{"version"'),
        "its tokenizer can't be read .JSONDecodeError",
    ),
    "no template": (
        lambda f: (f / "chat_template.jinja").unlink(),
        "no chat template; add the chat_template.jinja",
    ),
    "no eos": (without_eos, "no eos token; set eos_token in tokenizer_config.json"),
    "template with an error": (
        lambda f: template(f, "{% for m in messages %}{{ m['content'] }}"),
        "its chat template can't write a user's message .TemplateSyntaxError",
    ),
    "template that refuses": (
        lambda f: template(f, "{{ raise_exception('no users here') }}"),
        "its chat template can't write a user's message .TemplateError: no users here",
    ),
    "template that drops the text": (lambda f: template(f, "User:"), "doesn't write the text of a message"),
    "template with today's date": (
        lambda f: template(f, "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"),
        "writes the date, so no run could be repeated; write a fixed date in place of strftime_now into",
    ),
    "template with a date that can be set": (
        lambda f: template(
            f,
            "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
            "{{ date_string }}{{ messages[0]['content'] }}",
        ),
        "fix it with 'model.template_arguments={date_string: 26 Jul 2024}'",
    ),
    "template with today's date in system messages": (
        lambda f: template(
            f,
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ strftime_now('%d %b %Y') }}{% endif %}"
            "{{ m['content'] }}{% endfor %}",
        ),
        "behind a system message, its chat template writes the date, so no run could be repeated",
    ),
    "template that ends the thought of a second answer": (
        lambda f: template(
            f,
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
            "{{ messages[-1]['content'] }}{% if messages|length > 1 %}<think></think>\n{% endif %}",
        ),
        "in a longer conversation, its chat template ends the thought before the response begins",
    ),
    "template that ends the thought": (
        lambda f: template(
            f, "{{ messages[0]['content'] }}{% if not thinking %}<think>\n\n</think>\n\n{% endif %}"
        ),
        "ends the thought before the response begins.*try 'model.template_arguments={thinking: true}'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_named_with_what_is_wrong(folder, name):
    breaks, words = BROKEN[name]
    breaks(folder)
    with pytest.raises(ConfigError, match=words) as error:
        load_policy(path_config(folder), CPU, seed=0)
    assert str(error.value).startswith(f"model.path={folder}: ")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_folder_without_its_tokenizer_is_refused_where_transformers_makes_an_empty_one(tmp_path, kind):
    save_folder(tmp_path, kind)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    for load in (lambda config: load_policy(config, CPU, seed=0), load_codec):
        with pytest.raises(
            ConfigError, match="makes no tokens of 'what is .*; copy tokenizer.json and tokenizer_con"
        ):
            load(path_config(tmp_path))


LOWER = normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "decoder"),
    [
        (LOWER, pre_tokenizers.Whitespace(), decoders.WordPiece()),
        (None, pre_tokenizers.Metaspace(), decoders.Metaspace()),
        (None, pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()),
        (normalizers.NFKC(), pre_tokenizers.Split(" ", "removed"), None),
    ],
)
def test_a_tokenizer_may_change_spaces_and_case(normalizer, pre_tokenizer, decoder):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    trainer = trainers.BpeTrainer(vocab_size=60, show_progress=False)
    tokenizer.train_from_iterator(["what is 2 + 3 ? it is 5"] * 3, trainer)
    assert encoding_problem(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) is None


def test_a_file_is_no_folder(folder):
    with pytest.raises(ConfigError, match="model.safetensors: is a file, not a model folder"):
        load_policy(path_config(folder / "model.safetensors"), CPU, seed=0)


def test_template_arguments_mend_a_template(folder):
    template(
        folder,
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }} {{ messages[0]['content'] }}",
    )
    with pytest.raises(ConfigError, match="writes the date"):
        load_codec(path_config(folder))
    config = path_config(folder, template_arguments={"date_string": "26 Jul 2024"})
    for codec in (load_policy(config, CPU, seed=0).codec, load_codec(config)[0]):
        assert codec.prompt_text(ASKED) == "26 Jul 2024 7+5="


def test_a_template_may_refuse_all_but_one_users_message(folder):
    template(
        folder, "{% if messages|length > 1 %}{{ raise_exception('one') }}{% endif %}{{ messages[0]['content'] }}"
    )
    assert load_codec(path_config(folder))[0].prompt_text(ASKED) == "7+5="


def test_several_stop_tokens_of_the_generation_config_and_weights_that_are_not_used_are_no_fault(folder):
    edit(folder / "generation_config.json", eos_token_id=[3, 1])
    edit_weights(folder, lambda w: w.update({"visual.weight": torch.ones(2)}))
    assert load_policy(path_config(folder), CPU, seed=0).codec.stop_token_ids == [1, 3]


def test_weights_that_are_tied_need_not_be_there(tmp_path):
    save_folder(tmp_path, "llama", **USUAL, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load_policy(path_config(tmp_path), CPU, seed=0)


def test_an_embedding_larger_than_the_vocabulary_is_no_fault(tmp_path):
    model = tiny_model("llama", **USUAL)
    model.resize_token_embeddings(128)
    model.save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    load_policy(path_config(tmp_path), CPU, seed=0)


def test_a_codec_alone_needs_no_weights_and_knows_the_models_limit(folder):
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="damaged"):
        load_codec(path_config(folder))
    assert load_codec(ModelConfig(name="tiny", max_positions=77))[1] == 77


def rotation(kind, **settings):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings}}


ORIGINAL = {"original_max_position_embeddings": 32}
LONG = rotation("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, **ORIGINAL)
DYNAMIC = rotation("dynamic", factor=4.0)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 128),
        (rotation("yarn", factor=4.0), 512),
        (rotation("yarn", factor=4.0, original_max_position_embeddings=100), 400),
        (LONG, 32),
        (rotation("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, factor=4.0), 128),
        (DYNAMIC, 128),
        (rotation("dynamic", factor=4.0, **ORIGINAL), 32),
    ],
)
def test_the_limit_of_positions_knows_scaled_rotations(changes, limit):
    assert position_limit(tiny_model("llama", **USUAL | changes).config) == limit


def test_one_kind_of_layers_whose_rotations_change_with_the_length_limits_all():
    config = tiny_model("gemma3_text", **HEADS).config
    config.rope_parameters["full_attention"] |= {"rope_type": "dynamic", "factor": 4.0, **ORIGINAL}
    assert position_limit(config) == 32


@pytest.mark.parametrize("changes", [LONG, DYNAMIC], ids=["longrope", "dynamic"])
def test_up_to_its_limit_a_model_computes_the_same_for_a_token_beside_a_longer_sequence(changes):
    model = tiny_model("llama", **USUAL, **changes, initializer_range=0.3).eval()
    limit, tokens = position_limit(model.config), torch.arange(3, 100).repeat(2)
    with torch.no_grad():
        short = model(tokens[None, :20]).logits[0]
        for length, same in ((limit, True), (limit + 1, False)):
            whole = model(tokens[None, :length]).logits[0, :20]
            assert torch.allclose(short, whole, atol=1e-4) == same


@pytest.mark.parametrize("changes", [LONG, DYNAMIC], ids=["longrope", "dynamic"])
def test_positions_cannot_be_set_where_rotations_rest_on_their_number(tmp_path, changes):
    config = path_config(save_folder(tmp_path, "llama", **USUAL, **changes), positions=256)
    for load in (load_codec, lambda c: load_policy(c, CPU, 0), read_model_config):
        with pytest.raises(ConfigError, match=r"model.positions=256: .* of more than \d+; must be null"):
            load(config)


def test_positions_that_are_set_are_the_models(tmp_path):
    config = path_config(save_folder(tmp_path, "llama"), positions=256)
    assert load_codec(config)[1] == 256
    assert position_limit(load_policy(config, CPU, 0).model.config) == 256
    assert position_limit(read_model_config(config)) == 256


def test_a_model_without_positions_has_no_limit():
    assert position_limit(tiny_model("bloom", hidden_size=32, n_layer=1, n_head=4).config) is None
