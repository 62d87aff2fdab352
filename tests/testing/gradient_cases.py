"""The type of a case, a function with a right or wrong gradient, and the decorators that collect cases."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tensorlite.testing import axes, numpy_op

AXIS = axes(2, ("int", "negative"))


@dataclass(frozen=True)
class Case:
    """A function, the arguments to draw for it, and its mistake.

    missed: the reason why no check can find the mistake.
    """

    f: Callable[..., Any]
    what: str
    signature: str
    options: dict[str, Any] = field(default_factory=dict)
    missed: str = ""

    def __str__(self) -> str:
        return self.what


BUGS: list[Case] = []
RIGHT: list[Case] = []


def bug(what: str, signature: str, *, missed: str = "", **options: Any) -> Callable[[Any], Any]:
    """Add a function with the wrong gradient that ``what`` describes. Options are those of gradtest."""

    def enter(f: Any) -> Any:
        BUGS.append(Case(f, what, signature, options, missed))
        return f

    return enter


def right(signature: str, what: str = "", **options: Any) -> Callable[[Any], Any]:
    """Add a function with a right gradient. Options are those of gradtest."""

    def enter(f: Any) -> Any:
        RIGHT.append(Case(f, what or f.__name__.replace("_", " ").strip(), signature, options))
        return f

    return enter


def by_hand(what: str, signature: str, vjp: Callable[..., Any], **options: Any) -> Callable[[Any], Any]:
    """Add a function of NumPy arrays with a wrong hand-written gradient."""

    def enter(forward: Any) -> Any:
        return bug(what, signature, order=1, **options)(numpy_op(forward, vjp, forward.__name__))

    return enter
