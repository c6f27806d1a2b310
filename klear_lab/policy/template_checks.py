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
        return (
            "its chat template ends the thought before the response begins, and responses without one earn "
            "nothing; set what switches thinking on, e.g. model.template_arguments={enable_thinking: true}"
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
    named = [name for name in variables(codec) if "date" in name or "today" in name]
    if named:
        return f"fix it with model.template_arguments={{{named[0]}: 26 Jul 2024}}"
    return "write a fixed date in place of strftime_now in the folder's chat template"


def variables(codec: Codec) -> list[str]:
    """Returns the names that a template takes from its arguments."""
    template = codec.tokenizer.chat_template
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateError, TypeError):  # tags of transformers' own, or several templates by name
        return []
    return sorted(meta.find_undeclared_variables(parsed))
