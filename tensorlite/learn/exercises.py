"""What an exercise is: a function to write, the calls that check it, and the mistakes that have a hint of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Chapter", "Exercise", "Mistake"]


@dataclass(frozen=True)
class Mistake:
    """A typical wrong solution, and the hint for a learner whose function returns the same."""

    function: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """A function to write.

    solution: the right function. Its name, its parameters and its docstring are those of the learner's.
    calls: the arguments of each call that is compared with the solution.
    hint: what to try if the function is wrong in a way that `mistakes` does not list.
    mistakes: typical wrong solutions.
    parts: the names of what the function returns, if it returns several values.
    tolerance: the largest relative difference between two numbers that counts as equal.
    """

    solution: Callable[..., Any]
    calls: tuple[tuple[Any, ...], ...]
    hint: str
    mistakes: tuple[Mistake, ...] = ()
    parts: tuple[str, ...] = ()
    tolerance: float = 1e-9

    @property
    def name(self) -> str:
        """Return the name of the function."""
        return self.solution.__name__

    @property
    def signature(self) -> str:
        """Return the function's name and parameters, without types: ``slope(f, x, step=1e-05)``."""
        parameters = inspect.signature(self.solution).parameters.values()
        empty = inspect.Parameter.empty
        shown = [p.name if p.default is empty else f"{p.name}={p.default!r}" for p in parameters]
        return f"{self.name}({', '.join(shown)})"

    def stub(self) -> str:
        """Return the source of the function with its docstring, but without its body."""
        text = (inspect.getdoc(self.solution) or "").replace("\n", "\n    ").replace("\n    \n", "\n\n")
        return f'def {self.signature}:\n    """{text}\n    """\n    raise NotImplementedError\n'


@dataclass(frozen=True)
class Chapter:
    """A chapter of docs/learn: its number, its title, its page and its exercises."""

    number: int
    title: str
    page: str
    exercises: tuple[Exercise, ...]

    @property
    def file(self) -> str:
        """Return the name of the learner's file."""
        return f"chapter_{self.number}.py"

    def stubs(self) -> str:
        """Return the text of the learner's file: the exercises, without their bodies."""
        head = f'''"""The exercises of chapter {self.number}, {self.title}: {self.page}.

Replace each `raise NotImplementedError` by your own code. Then run:

    python -m tensorlite.learn check {self.number}
"""

import numpy as np
'''
        return "\n\n".join([head, *(exercise.stub() for exercise in self.exercises)])
