"""Checks of a chat template: it writes the message, the same on every day, and leaves the thought to the model."""

from jinja2 import Environment, TemplateError, meta

from klear_lab.policy.codec import RENDER_ERRORS, SENTINEL, Codec

MESSAGE = [{"role": "user", "content": SENTINEL}]


def template_problem(codec: Codec) -> str | None:
    """Returns what makes a chat template unfit for training, None for nothing."""
    try:
        prompt = codec.prompt_text(MESSAGE)
    except RENDER_ERRORS as error:
        return f"its chat template can't write a user's message ({type(error).__name__}: {error}); mend it"
    if SENTINEL not in prompt:
        return "its chat template doesn't write the text of a message; mend it, or use another tokenizer's"
    if reads_clock(codec, prompt):
        return f"its chat template writes the date, so no run could be repeated; {date_remedy(codec)}"
    if prompt.rstrip().endswith("</think>"):
        switch = argument(codec, "think") or "enable_thinking"
        return (
            "its chat template ends the thought before the response begins, and responses without one earn "
            f"nothing; try 'model.template_arguments={{{switch}: true}}'"
        )
    return None


def reads_clock(codec: Codec, prompt: str) -> bool:
    """Tells whether a template asks transformers for the time: without that function it writes no such prompt."""
    try:
        return codec.prompt_text(MESSAGE, strftime_now="hides the function") != prompt
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
