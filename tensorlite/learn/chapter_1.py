"""The exercises of chapter 1: a number that remembers."""

from __future__ import annotations

import math
from collections.abc import Callable

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Records = list[tuple[str, list[tuple[str, float]]]]


def slope(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    """Return the slope of the function f at x, by a finite difference.

    Call f twice: once at a point that is `step` to the right of x, once at a point that is `step` to the left.
    Divide the difference of the values by the distance of the two points.

    >>> slope(lambda x: x * x, 3.0, 0.5)
    6.0
    """
    return (f(x + step) - f(x - step)) / (2 * step)


def divide_gradients(g: float, a: float, b: float) -> tuple[float, float]:
    """Return the gradients of a and b for one division, y = a / b.

    g is the gradient of y: the slope of the final result with respect to y. Return a tuple: first the gradient of a,
    then that of b.

    >>> divide_gradients(4.0, 6.0, 2.0)
    (2.0, -6.0)
    """
    return g / b, -g * a / b**2


def gradients(records: Records, result: str) -> dict[str, float]:
    """Return the gradient of `result` with respect to each number that it depends on, by name.

    records has an entry (output, inputs) for each operation, in the order in which they ran. `inputs` is a list of
    (name, slope): the slope of the output with respect to that input. An input that is used twice appears twice. The
    gradient of the result itself is 1.0, and it is part of the answer. A number that the result does not depend on is
    not.

    >>> records = [("y", [("x", 3.0), ("x", 3.0)]), ("z", [("y", 2.0), ("b", 1.0)])]
    >>> gradients(records, "z")
    {'z': 1.0, 'y': 2.0, 'b': 1.0, 'x': 12.0}
    """
    found = {result: 1.0}
    for output, inputs in reversed(records):
        if output in found:
            for name, local in inputs:
                found[name] = found.get(name, 0.0) + found[output] * local
    return found


# ---- calls ----------------------------------------------------------------------------------------------------------


def _square(x: float) -> float:
    """f, where f(x) = x * x"""
    return x * x


def _cubic(x: float) -> float:
    """f, where f(x) = x ** 3 - 2 * x"""
    return x**3 - 2 * x


def _sine(x: float) -> float:
    """f, where f(x) = sin(x)"""
    return math.sin(x)


_CHAIN: Records = [("h", [("x", 3.0)]), ("y", [("h", -2.0), ("b", 1.0)])]
_TWICE: Records = [("s", [("x", 3.0), ("x", 3.0)]), ("y", [("s", 0.5)])]
# y = a + b, where a and b both come from h: b must have passed its gradient on before h passes on its own.
_DIAMOND: Records = [("h", [("x", 2.0)]), ("a", [("h", 3.0)]), ("b", [("h", 5.0)]), ("y", [("a", 1.0), ("b", 1.0)])]
_UNUSED: Records = [("h", [("x", 2.0)]), ("log", [("h", 7.0)]), ("y", [("h", 4.0)]), ("later", [("z", 9.0)])]


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _one_side(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return (f(x + step) - f(x)) / step


def _half_distance(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return (f(x + step) - f(x - step)) / step


def _not_divided(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return f(x + step) - f(x - step)


def _divided_and_multiplied(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return (f(x + step) - f(x - step)) / 2 * step


def _fixed_step(f: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return slope(f, x)


def _positive(g: float, a: float, b: float) -> tuple[float, float]:
    return g / b, g * a / b**2


def _without_g(g: float, a: float, b: float) -> tuple[float, float]:
    return 1 / b, -a / b**2


def _of_product(g: float, a: float, b: float) -> tuple[float, float]:
    return g * b, g * a


def _swapped(g: float, a: float, b: float) -> tuple[float, float]:
    return -g * a / b**2, g / b


def _overwritten(records: Records, result: str) -> dict[str, float]:
    found = {result: 1.0}
    for output, inputs in reversed(records):
        if output in found:
            for name, local in inputs:
                found[name] = found[output] * local
    return found


def _forwards(records: Records, result: str) -> dict[str, float]:
    found = {result: 1.0}
    for output, inputs in records:
        if output in found:
            for name, local in inputs:
                found[name] = found.get(name, 0.0) + found[output] * local
    return found


def _only_local(records: Records, result: str) -> dict[str, float]:
    found = {result: 1.0}
    for output, inputs in reversed(records):
        if output in found:
            for name, local in inputs:
                found[name] = found.get(name, 0.0) + local
    return found


def _all_numbers(records: Records, result: str) -> dict[str, float]:
    found = {result: 1.0}
    for output, inputs in reversed(records):
        for name, local in inputs:
            found[name] = found.get(name, 0.0) + found.get(output, 0.0) * local
    return found


def _zeros(records: Records, result: str) -> dict[str, float]:
    names = [name for output, inputs in records for name in (output, *(name for name, _ in inputs))]
    return dict.fromkeys(names, 0.0) | gradients(records, result)


CHAPTER = Chapter(
    1,
    "a number that remembers",
    "docs/learn/1-a-number-that-remembers.md",
    (
        Exercise(
            slope,
            ((_square, 3.0, 0.5), (_cubic, 2.0, 0.5), (_square, -1.0), (_cubic, 2.0), (_sine, 0.5)),
            "The two points are x + step and x - step. How far apart are they?",
            (
                Mistake(_one_side, "This looks at one side of x only. Use f(x + step) and f(x - step)."),
                Mistake(_half_distance, "The points x + step and x - step are 2 * step apart, not step."),
                Mistake(_not_divided, "This is the difference of the values. Divide it by the distance of the points."),
                Mistake(_divided_and_multiplied, "`/ 2 * step` divides by 2 and multiplies by step. "
                                                 "Write `/ (2 * step)`."),
                Mistake(_fixed_step, "The function must use the argument step."),
            ),
            tolerance=1e-7,
        ),
        Exercise(
            divide_gradients,
            ((4.0, 6.0, 2.0), (1.0, 1.0, 3.0), (-0.5, 2.0, -4.0), (0.0, 5.0, 2.0)),
            "The slope of a / b with respect to a is 1 / b, and with respect to b it is -a / b ** 2. Multiply by g.",
            (
                Mistake(_positive, "If b grows, a / b falls: the gradient of b has a minus."),
                Mistake(_without_g, "These are the slopes of y alone. The chain rule multiplies them by g."),
                Mistake(_of_product, "These are the gradients of a * b. The exercise is a / b."),
                Mistake(_swapped, "The gradient of a comes first, then that of b."),
            ),
            parts=("the gradient of a", "the gradient of b"),
        ),
        Exercise(
            gradients,
            ((_CHAIN, "y"), (_TWICE, "y"), (_DIAMOND, "y"), (_UNUSED, "y")),
            "Go from the last record to the first. Each input gets the gradient of the output times the slope. "
            "An output without a gradient does not matter for the result: skip its record.",
            (
                Mistake(_forwards, "This goes from the first record to the last. Begin with the last one."),
                Mistake(_only_local, "Multiply each slope by the gradient of the output: that is the chain rule."),
                Mistake(_overwritten, "A number that is used twice gets two gradients: add the second to the first."),
                Mistake(_all_numbers, "Skip a record if the result does not depend on its output."),
                Mistake(_zeros, "A number that the result does not depend on is not in the answer, not even as 0."),
            ),
        ),
    ),
)  # fmt: skip
