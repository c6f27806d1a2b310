"""Codecs: responses continue their prompts, end as the template ends a turn, and come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from klear_lab.policy.codec import make_codec
from klear_lab.policy.model import CHARACTERS, character_tokenizer
from support.models import CHATML, byte_pair_tokenizer

CORPUS = ["[INST] 7+5=2;2*3=6 the answer is [/INST] <think>7+5=2\n\n2*3=6</think>4 then the rest"] * 50
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
OPENED = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
ASKED = [{"role": "user", "content": "7+5="}]


def metaspace_tokenizer(template, scheme="always"):
    """A tokenizer in miniature as Llama 2's: SentencePiece pieces, a space put before a text, byte fallback."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme == "normalizer":  # as older conversions of it have it
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = [*map(chr, range(33, 127))]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=[*alphabet, "▁"],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    fast.chat_template = template
    return fast


CODECS = {
    "characters": lambda: make_codec(character_tokenizer(), None, {}),
    "byte-level": lambda: make_codec(byte_pair_tokenizer(CHATML), None, {}),
    "byte-level, opened thought": lambda: make_codec(byte_pair_tokenizer(OPENED), None, {}),
    **{
        f"metaspace {scheme}, {name}": lambda template=template, scheme=scheme: make_codec(
            metaspace_tokenizer(template, scheme), None, {}
        )
        for scheme in ("always", "first", "normalizer")
        for name, template in {"Llama 2": LLAMA_2, "ChatML": CHATML, "opened thought": OPENED}.items()
    },
}


@pytest.fixture(params=CODECS, scope="module")
def codec(request):
    return CODECS[request.param]()


@given(st.text(CHARACTERS.replace("<", ""), min_size=1, max_size=20))
def test_prompt_and_response_together_are_the_text_that_the_template_makes(codec, text):
    prompt, response = codec.prompt_text(ASKED), f"<think>{text}</think>4"
    ids = [*codec.encode_prompt(ASKED), *codec.encode_response(ASKED, response)]
    assert ids[-1] == codec.turn_end_id
    whole = prompt + (response.removeprefix("<think>") if codec.opens_thought(ASKED) else response)
    if prompt.endswith("<think>\n"):  # the newline is the template's, whether or not the response has it too
        whole = prompt + response.removeprefix("<think>").removeprefix("\n")
    assert codec.decode(ids[:-1]) == codec.decode(codec.encode(prompt)) + whole.removeprefix(prompt)
    assert codec.encode(whole) == ids[:-1] or codec.encode(whole)[: len(codec.encode(prompt))] != codec.encode(
        prompt
    )
    assert "".join(map(codec.decode_token, ids[len(codec.encode(prompt)) : -1])) == whole.removeprefix(prompt)


@given(st.text(CHARACTERS.replace("<", ""), min_size=1, max_size=20).filter(lambda text: text[0] not in " \n"))
def test_a_sampled_response_comes_back_as_text(codec, text):
    response = f"<think>{text}</think>4"
    assert codec.decode_response(ASKED, codec.encode_response(ASKED, response)) == response


def test_a_response_has_no_space_that_its_tokenizer_puts_before_a_text():
    codec = make_codec(metaspace_tokenizer(CHATML), None, {})
    alone, response = codec.encode("7+5=2"), codec.encode_response(ASKED, "7+5=2")
    assert codec.tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")
    assert not codec.tokenizer.convert_ids_to_tokens(response)[0].startswith("▁")


def test_an_opened_thought_keeps_a_single_newline():
    codec = make_codec(byte_pair_tokenizer(OPENED), None, {})
    for response in ("<think>\n7</think>4", "<think>7</think>4", "\n<think>\n7</think>4"):
        assert codec.decode(codec.encode_response(ASKED, response)) == "7</think>4<|im_end|>"
    assert codec.decode(codec.encode_response(ASKED, "<think>\n\n7</think>4")) == "\n7</think>4<|im_end|>"


def test_the_end_of_the_templates_turn_is_learned_and_stops_beside_the_other_ends():
    tokenizer = metaspace_tokenizer(CHATML)  # its own end is </s>, the template's <|im_end|>
    codec = make_codec(tokenizer, [0, 1], {})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert codec.encode_response(ASKED, "4")[-1] == codec.turn_end_id == end
    assert codec.stop_token_ids == sorted({0, 1, tokenizer.eos_token_id, end})


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (LLAMA_2, "</s>"),
        (CHATML.replace("<|im_end|>", "<end>"), "</s>"),  # no token of its own
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "</s>"),
        (
            "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}{{ messages[0].content }}",
            "</s>",
        ),
        (CHATML.replace("}}<|im_end|>\n", "}}\n<|im_end|>\n"), "<|im_end|>"),
    ],
)
def test_without_a_turn_end_of_the_template_the_tokenizers_end_serves(template, end):
    codec = make_codec(metaspace_tokenizer(template), None, {})
    assert codec.tokenizer.convert_ids_to_tokens(codec.turn_end_id) == end


def test_the_character_tokenizer_ends_responses_as_ever():
    codec = CODECS["characters"]()
    assert codec.encode_response(ASKED, "7<")[-1] == codec.tokenizer.eos_token_id
    assert codec.stop_token_ids == [codec.tokenizer.eos_token_id]


def test_template_arguments_reach_the_template():
    template = CHATML + "{% if thinking is defined and thinking %}<think>{% endif %}"
    plain, thinking = (make_codec(byte_pair_tokenizer(template), None, a) for a in ({}, {"thinking": True}))
    assert not plain.opens_thought(ASKED)
    assert thinking.opens_thought(ASKED)
