"""Checks of a chat template: it writes the message, the same on every day, and leaves the thought to the model.

Conversations of three shapes are tried, since a template may write a date only beside a system message, say.
"""

from jinja2 import Environment, TemplateError, meta

from klear_lab.policy.codec import RENDER_ERRORS, SENTINEL, Codec

MESSAGE = [{"role": "user", "content": SENTINEL}]
FURTHER = {
    "behind a system message, ": [{"role": "system", "content": "?"}, *MESSAGE],
    "in a longer conversation, ": [*MESSAGE, {"role": "assistant", "content": "?"}, *MESSAGE],
}


def template_problem(codec: Codec) -> str | None:
    """Returns what makes a chat template unfit for training, None for nothing."""
    try:
        prompt = codec.prompt_text(MESSAGE)
    except RENDER_ERRORS as error:
        return f"its chat template can't write a user's message ({type(error).__name__}: {error}); mend it"
    if SENTINEL not in prompt:
        return "its chat template doesn't write the text of a message; mend it, or use another tokenizer's"
    shapes = {"": MESSAGE, **FURTHER}.items()
    return next(filter(None, (conversation_problem(codec, messages, where) for where, messages in shapes)), None)


def conversation_problem(codec: Codec, messages: list[dict[str, str]], where: str) -> str | None:
    """Returns what is wrong with the prompt that a template writes, None for nothing and where it refuses."""
    try:
        prompt = codec.prompt_text(messages)
    except RENDER_ERRORS:
        return None  # a row of this shape is named once it is encoded
    if reads_clock(codec, messages, prompt):
        return f"{where}its chat template writes the date, so no run could be repeated; {date_remedy(codec)}"
    if prompt.rstrip().endswith("</think>"):
        switch = argument(codec, "think") or "enable_thinking"
        return (
            f"{where}its chat template ends the thought before the response begins, and responses without one "
            f"earn nothing; try 'model.template_arguments={{{switch}: true}}'"
        )
    return None


def reads_clock(codec: Codec, messages: list[dict[str, str]], prompt: str) -> bool:
    """Tells whether a template asks transformers for the time: without that function it writes no such prompt."""
    try:
        return codec.prompt_text(messages, strftime_now="hides the function") != prompt
    except RENDER_ERRORS:
        return True


def date_remedy(codec: Codec) -> str:
    """Says how to fix the date: with the template's own argument where it has one."""
    if name := argument(codec, "date") or argument(codec, "today"):
        return f"fix it with 'model.template_arguments={{{name}: 26 Jul 2024}}'"
    return "write a fixed date in place of strftime_now into the chat template, in a copy of the folder"


def argument(codec: Codec, part: str) -> str | None:
    """Returns an argument that a template takes and whose name has a part, None for no such one."""
    template = codec.tokenizer.chat_template
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateError, TypeError):  # tags of transformers' own, or several templates by name
        return None
    return next((name for name in sorted(meta.find_undeclared_variables(parsed)) if part in name), None)
