"""Chat templates: how a conversation becomes the text that a chat model was trained on.

A template is a program in the language of jinja2, and comes with a model, so from anybody. It is rendered in jinja2's
sandbox, which lets it reach neither attributes of Python's own nor files, and with limits of time and size.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from gpt.errors import UserError, extra, short

# Limits of a template, and of each text that it makes, in characters; and of the time that it takes, in seconds.
MAX_TEMPLATE, MAX_TEXT, MAX_SECONDS = 2**17, 2**22, 5.0
MAX_INDENT = 16  # of JSON

# Methods that make a text, or bytes, of any size. Templates of models use none of them.
UNLIMITED = (
    "center", "encode", "expandtabs", "format", "format_map", "ljust", "rjust", "to_bytes", "translate", "zfill",
)  # fmt: skip
# Filters that do so, or that loop where no limit of time is checked.
UNLIMITED_FILTERS = (
    "batch", "center", "filesizeformat", "format", "indent", "pprint", "slice", "wordwrap", "xmlattr",
)  # fmt: skip

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

    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.filters import make_attrgetter
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `generation`, which marks the text of the assistant for training. It changes no text."""

        tags = {"generation"}  # noqa: RUF012  (jinja2 wants a set)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class Sandbox(ImmutableSandboxedEnvironment):
        """A sandbox in which products, powers and formats have a limit of size."""

        intercepted_binops = frozenset(["*", "**", "%", "+"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and (abs(left) > 2**16 or abs(right) > 64):
                raise ChatTemplateError(f"the chat template computes {short(left)} ** {short(right)}")
            if operator == "*" and max(size_of(left) * repeats(right), size_of(right) * repeats(left)) > MAX_TEXT:
                raise ChatTemplateError("the chat template repeats a text or a list too often")
            if operator == "+":
                check_length(size_of(left) + size_of(right))
            if operator == "%" and isinstance(left, str) and any(c.isdigit() or c == "*" for c in left):
                raise ChatTemplateError("the chat template formats numbers with a width, which is not supported")
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str | int) and attr in UNLIMITED:
                return False
            return super().is_safe_attribute(obj, attr, value)

        def call(self, context: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
            text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
            if isinstance(text, str) and name == "replace":
                return replace(text, *arguments, **options)
            if isinstance(text, str) and name == "join" and len(arguments) == 1:
                return join(arguments[0], text)
            return super().call(context, function, *arguments, **options)

    def raise_exception(message: object) -> None:
        raise ChatTemplateError(f"the chat template refuses the conversation: {short(str(message))}")

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if indent is not None and indent > MAX_INDENT:
            raise ChatTemplateError(f"the chat template indents JSON by {short(indent)}, and the limit is {MAX_INDENT}")
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def join_filter(values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        return join(values if attribute is None else map(make_attrgetter(made, attribute), values), d)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    plain_sum = made.filters["sum"]

    @jinja2.pass_environment
    def limited_sum(environment: Any, values: Any, attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):  # A sum of lists takes quadratic time, which no line interrupts.
            raise ChatTemplateError(f"the chat template sums from {short(start)}, and only numbers can be summed")
        return plain_sum(environment, values, attribute, start)

    made.filters.update(tojson=tojson, replace=replace, join=join_filter, sum=limited_sum)
    for name in UNLIMITED_FILTERS:
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


def replace(text: object, old: object, new: object, count: int | None = None) -> str:
    """Return a text where `new` replaces `old`, everywhere or `count` times. Raises ChatTemplateError."""
    text, old, new, limit = str(text), str(old), str(new), -1 if count is None else count
    times = text.count(old) if limit < 0 else min(text.count(old), limit)
    check_length(len(text) + times * (len(new) - len(old)))
    return text.replace(old, new, limit)


def join(values: Iterable[object], separator: object = "") -> str:
    """Return the texts of values with a separator between them. Raises ChatTemplateError."""
    texts, total, separator = [], 0, str(separator)
    for value in values:
        texts.append(str(value))
        total += len(texts[-1]) + len(separator)
        check_length(total - len(separator))
    return separator.join(texts)


def check_size(text: object) -> None:
    """Raise ChatTemplateError for a text that is too long."""
    if isinstance(text, str):
        check_length(len(text))


def check_length(characters: int) -> None:
    """Raise ChatTemplateError for a text of too many characters."""
    if characters > MAX_TEXT:
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
        from jinja2.utils import Namespace

        if frame.f_code.co_filename != "<template>":
            return None
        if time.monotonic() > self.deadline:
            raise ChatTemplateError(f"the chat template takes more than {MAX_SECONDS:g} seconds")
        for value in frame.f_locals.values():
            check_size(value)
            if isinstance(value, Namespace):  # Its attributes live between lines, too.
                for held in object.__getattribute__(value, "_Namespace__attrs").values():
                    check_size(held)
        return self.trace
