"""Fields of a configuration: a dataclass field with its meaning, its unit and the values that it accepts.

pydantic's `Field` does the same. It is not used, because importing it takes longer than the whole of `gpt --help`.
"""

import dataclasses
import difflib
import math
import numbers
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, get_args

from gpt.errors import UserError, short

Field = dataclasses.Field[Any]

COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used: an unknown key, a wrong type, or a value out of range."""


def option(
    default: Any,
    help: str,
    unit: str = "",
    *,
    choices: Iterable[str] = (),
    several: bool = False,
    ge: float = -math.inf,
    gt: float = -math.inf,
    le: float = math.inf,
    lt: float = math.inf,
) -> Any:
    """Return a dataclass field that describes itself, for `validate` and for the command line.

    default: None makes the field optional, as in `seed: int | None = option(None, ...)`.
    choices: the strings that the field accepts; empty accepts any.
    several: whether the field also accepts a list of such values, which becomes a tuple, or the value if it is one.
    ge, gt, le, lt: bounds of a number, inclusive for `ge` and `le`.
    """
    limits: dict[str, float] = {">=": ge, ">": gt, "<=": le, "<": lt}
    limits = {sign: bound for sign, bound in limits.items() if math.isfinite(bound)}
    metadata = {"help": help, "unit": unit, "choices": tuple(choices), "several": several, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


def value_type(field: Field) -> type:
    """Return the type of a field's values: `int` for `int` and for `int | None`."""
    kind: Any = field.type
    return get_args(kind)[0] if get_args(kind) else kind


def validate(name: str, value: Any, field: Field) -> Any:
    """Return `value` as the field's type; an int becomes a float where the field is a float.

    name: the name that the message gives to the value. Raises ConfigError for a wrong type or a value out of range.
    """
    if value is None and field.default is None:
        return None
    if field.metadata["several"] and isinstance(value, list | tuple):
        values = tuple(validate(name, part, field) for part in value if not isinstance(part, list | tuple))
        if not values or len(values) < len(value):
            raise ConfigError(f"{name} = {short(value)}: expected a value, or a list of them")
        return values[0] if len(values) == 1 else values
    expected: Any = value_type(field)
    given = type(value)  # NumPy's numbers become Python's.
    if expected is int and given is not bool and isinstance(value, numbers.Integral):
        value = int(value)
    elif expected is float and given not in (bool, int) and isinstance(value, numbers.Real):
        value = float(value)
    if expected is float and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    shown = short(value)
    if type(value) is not expected:  # Compare exactly, because True is an int too.
        raise ConfigError(f"{name} = {shown}: expected {expected.__name__}, got {type(value).__name__}")
    if expected is float and not math.isfinite(value):
        raise ConfigError(f"{name} = {value}: expected a finite number")
    if expected is str and not is_file_name(value):
        raise ConfigError(f"{name} = {shown}: a file name cannot contain a zero byte or half a surrogate pair")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(f"{name} = {shown}: choose one of {', '.join(choices)}")
    for sign, bound in field.metadata["limits"].items():
        if not COMPARISONS[sign](value, bound):
            raise ConfigError(f"{name} = {shown}: must be {sign} {bound}")
    return value


def is_file_name(value: str) -> bool:
    """Return whether the operating system can be asked for a file of this name."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean 'x'?` with the nearest known name, or the list of all known names."""
    known = sorted(known)
    dot = f"{prefix}." if prefix else ""
    # The search takes long for a long name, and a name from a file may have any length.
    if len(name) <= 100 and (near := difflib.get_close_matches(name, known, n=1)):
        return f"; did you mean {dot + near[0]!r}?"
    return "; known: " + ", ".join(dot + k for k in known)


class Section:
    """A base of config dataclasses that validates every field when an instance is made."""

    section: ClassVar[str]
    """The name of the section, which begins the dotted name of each option."""

    def __post_init__(self) -> None:
        for name, field, value in self.options():
            object.__setattr__(self, field.name, validate(name, value, field))
        self.check()

    def check(self) -> None:
        """Raise ConfigError for values that are valid alone but not together."""

    def options(self) -> Iterator[tuple[str, Field, Any]]:
        """Yield (dotted name, field, value) for each option."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            yield f"{self.section}.{field.name}", field, getattr(self, field.name)
