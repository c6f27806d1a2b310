"""Codecs: from messages to a model's tokens and back, by its tokenizer and chat template, without the model.

A response is encoded as the continuation of its prompt: its tokens are those that the whole text would have. Where
a tokenizer would merge the last of the prompt with the first of the response, which sampling never does, the
response is split as after a neutral character; encoded alone it would get the space that tokenizers such as
Llama 2's put before a text.
"""

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

RENDER_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)  # what a template may raise
SENTINEL = "8128"  # stands for the assistant's text, where the template's turn end is looked for
NEUTRAL = ("\n", ".", "=", "a", " ")  # what a response may be encoded after, where its prompt won't do


@dataclass(frozen=True)
class Codec:
    """A codec encodes prompts and responses, and decodes what was sampled; `make_codec` makes one.

    `turn_end_id` ends a response to learn from, `stop_token_ids` those that are sampled, in ascending order.
    """

    tokenizer: PreTrainedTokenizerBase
    turn_end_id: int
    stop_token_ids: list[int]
    template_arguments: dict[str, Any]

    @property
    def pad_token_id(self) -> int:
        """Returns the token that fills unused positions.

        No result depends on these, so any token serves where the tokenizer has none.
        """
        pad = self.tokenizer.pad_token_id
        return self.stop_token_ids[0] if pad is None else pad

    def encode_prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Returns the token ids of the templated prompt, up to where the response begins."""
        return self.encode(self.prompt_text(messages))

    def encode_response(self, messages: list[dict[str, str]], response: str) -> list[int]:
        """Returns the token ids of a response to learn from, with the token that ends the template's turn.

        A template that ends in `<think>` has opened the thought already, so the model doesn't learn that again,
        nor the white space that the template wrote after it.
        """
        prompt = self.prompt_text(messages)
        if ends_in_thought(prompt):
            written = prompt[len(prompt.rstrip()) :]
            response = response.lstrip().removeprefix("<think>").removeprefix(written)
        return [*self.continuation(prompt, response), self.turn_end_id]

    def continuation(self, prompt: str, response: str) -> list[int]:
        """Returns the token ids of a response as they follow those of its prompt."""
        for before in (prompt, *NEUTRAL):
            known, whole = self.encode(before), self.encode(before + response)
            if whole[: len(known)] == known:
                return whole[len(known) :]
        return self.encode(response)

    def decode_response(self, messages: list[dict[str, str]], token_ids: list[int]) -> str:
        """Returns the text of a sampled response, with a `<think>` that the template opened, no stop tokens."""
        return self.decode_responses(messages, [token_ids])[0]

    def decode_responses(self, messages: list[dict[str, str]], responses: list[list[int]]) -> list[str]:
        """Returns the texts of several responses to one prompt, which the template writes only once."""
        stop = set(self.stop_token_ids)
        opened = "<think>" if self.opens_thought(messages) else ""
        return [opened + self.decode([token for token in ids if token not in stop]) for ids in responses]

    def decode_token(self, token_id: int) -> str:
        """Returns the text of one token within a text; for part of a character, what the tokenizer makes of it.

        The second of two has the space that the first loses where a tokenizer drops a text's leading space.
        """
        return self.decode([token_id, token_id])[len(self.decode([token_id])) :]

    def opens_thought(self, messages: list[dict[str, str]]) -> bool:
        """Tells whether the chat template itself writes the `<think>`."""
        return ends_in_thought(self.prompt_text(messages))

    def prompt_text(self, messages: list[dict[str, str]], **more: Any) -> str:
        """Returns the prompt as the chat template writes it, with `more` arguments of the template."""
        return render(self.tokenizer, messages, {**self.template_arguments, **more}, add_generation_prompt=True)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, with special tokens only where the text has them."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, token_ids: list[int]) -> str:
        """Returns the text of token ids, special tokens included."""
        kept = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(token_ids, **kept))


def make_codec(
    tokenizer: PreTrainedTokenizerBase, stop: int | list[int] | None, template_arguments: dict[str, Any]
) -> Codec:
    """Makes the codec of a tokenizer. `stop` are the stop tokens of the model's generation config.

    A response also stops at the tokenizer's end-of-sequence token, and where the template ends a turn.
    """
    turn_end = find_turn_end(tokenizer, template_arguments)
    eos = tokenizer.eos_token_id
    ends = [*(stop if isinstance(stop, list) else [stop]), eos, turn_end]
    known = sorted({token for token in ends if token is not None})
    return Codec(tokenizer, eos if turn_end is None else turn_end, known, dict(template_arguments))


def find_turn_end(tokenizer: PreTrainedTokenizerBase, template_arguments: dict[str, Any]) -> int | None:
    """Returns the token that the template writes behind an assistant's text; None where it writes none there.

    White space before it is skipped: Llama 2's template writes a space.
    """
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SENTINEL}]
    try:
        text = render(tokenizer, turns, template_arguments, add_generation_prompt=False)
    except RENDER_ERRORS:
        return None  # of a template for single questions
    _, found, after = text.rpartition(SENTINEL)
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: -len(item[0]))
    ends = (token_id for token, token_id in added if after.lstrip().startswith(token))
    return next(ends, None) if found else None


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    template_arguments: dict[str, Any],
    *,
    add_generation_prompt: bool,
) -> str:
    """Returns messages as the chat template writes them. Raises one of RENDER_ERRORS where it can't."""
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, **template_arguments
    )
    return str(text)


def ends_in_thought(prompt: str) -> bool:
    """Tells whether a templated prompt has opened the thought."""
    return prompt.rstrip().endswith("<think>")
