"""Chat templates: how a conversation becomes the text that a chat model was trained on.

A template is a program in the language of jinja2, and comes with a model, so from anybody. It is rendered in jinja2's
sandbox, which lets it reach neither attributes of Python's own nor files, and with limits of time and size.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from gpt.errors import UserError, extra, short

# Limits of a template, and of each text that it makes, in characters; and of the time that it takes, in seconds.
MAX_TEMPLATE, MAX_TEXT, MAX_SECONDS = 2**17, 2**22, 5.0

# Methods of str that make a text of any size.
UNLIMITED = ("center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill")

Message = Mapping[str, Any]


class ChatTemplateError(UserError, ValueError):
    """A chat template that does not parse, fails, reaches outside, or takes too long; or messages it cannot take."""


class ChatTemplate:
    """A template that was parsed.

    source: the text of the template. variables: what it can use in addition to the messages, such as bos_token.
    Raises ChatTemplateError.
    """

    def __init__(self, source: str, variables: Mapping[str, str] | None = None) -> None:
        with extra():
            from jinja2 import TemplateError
        if len(source) > MAX_TEMPLATE:
            raise ChatTemplateError(
                f"the chat template has {len(source):,} characters, and the limit is {MAX_TEMPLATE:,}"
            )
        self.variables = dict(variables or {})
        try:
            self._template = environment().from_string(source)
        except (TemplateError, RecursionError, MemoryError) as error:
            raise ChatTemplateError(f"the chat template does not parse: {short(str(error))}") from None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """Return the text of a conversation.

        messages: dicts with `role` ("system", "user", "assistant") and `content`.
        add_generation_prompt: whether the text ends where the answer of the assistant begins.
        Raises ChatTemplateError, also with the message that a template itself raises.
        """
        given = {**self.variables, "add_generation_prompt": add_generation_prompt, **variables}
        try:
            with Limits():
                text = self._template.render(messages=[dict(message) for message in messages], **given)
        except ChatTemplateError:
            raise
        except Exception as error:  # A template can raise anything that Python's operators raise.
            raise ChatTemplateError(f"the chat template fails: {type(error).__name__}: {short(str(error))}") from None
        check_size(text)
        return text


def environment() -> Any:
    """Return the environment of chat templates, with what transformers offers in its own."""
    import json

    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """A sandbox in which products, powers and formats have a limit of size."""

        intercepted_binops = frozenset(["*", "**", "%"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and (abs(left) > 2**16 or abs(right) > 64):
                raise ChatTemplateError(f"the chat template computes {short(left)} ** {short(right)}")
            if operator == "*" and max(size_of(left) * repeats(right), size_of(right) * repeats(left)) > MAX_TEXT:
                raise ChatTemplateError("the chat template repeats a text or a list too often")
            if operator == "%" and isinstance(left, str) and any(c.isdigit() or c == "*" for c in left):
                raise ChatTemplateError("the chat template formats numbers with a width, which is not supported")
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str) and attr in UNLIMITED:
                return False
            return super().is_safe_attribute(obj, attr, value)

    def raise_exception(message: object) -> None:
        raise ChatTemplateError(f"the chat template refuses the conversation: {short(str(message))}")

    def tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = tojson
    for name in ("center", "indent", "format", "wordwrap", "filesizeformat", "pprint", "xmlattr"):
        made.filters.pop(name, None)
    made.globals.update(raise_exception=raise_exception, strftime_now=time.strftime)
    for name in ("lipsum", "cycler", "joiner"):
        made.globals.pop(name, None)
    return made


def size_of(value: Any) -> int:
    """Return the length of a text or a list, 0 for anything else."""
    return len(value) if isinstance(value, str | list | tuple) else 0


def repeats(value: Any) -> int:
    """Return how often a product with an integer repeats a text."""
    return max(value, 0) if isinstance(value, int) else 0


def check_size(text: object) -> None:
    """Raise ChatTemplateError for a text that is too long."""
    if isinstance(text, str) and len(text) > MAX_TEXT:
        raise ChatTemplateError(f"the chat template makes a text of more than {MAX_TEXT:,} characters")


class Limits:
    """Context manager that stops the code of templates after a time, or once a text in it is too long.

    jinja2 compiles a template to Python, so Python's tracing sees each of its lines. Other code is not traced.
    """

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        self.deadline = time.monotonic() + MAX_SECONDS
        sys.settrace(self.trace)

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self.before)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Check the limits at each line of a template."""
        if frame.f_code.co_filename != "<template>":
            return None
        if time.monotonic() > self.deadline:
            raise ChatTemplateError(f"the chat template takes more than {MAX_SECONDS:g} seconds")
        for value in frame.f_locals.values():
            check_size(value)
        return self.trace
