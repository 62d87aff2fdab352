"""A custom op: a function on arrays, and the rule for its gradient.

    python examples/03_custom_op.py

tl.op makes a differentiable op from a plain function. The first op below has a gradient rule that is made of other ops.
That is enough for derivatives of any order. The second op has a backward function on raw arrays, for speed. It also has
the same formula in plain ops, for second and higher derivatives.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorlite as tl
from tensorlite import func

# ---- 1. A function and its gradient rule --------------------------------------------------------

# log(cosh(x)) is about x^2 / 2 near 0, and about |x| - log(2) far from 0. As a loss it is smooth, and outliers do not
# dominate it. The rule gets g, the gradient of the result, and returns the gradient of x: g times the derivative.


@tl.op(lambda g, x: g * tl.tanh(x))  # the derivative is tanh(x); the rule has a parameter x, so the op saves x
def log_cosh(xp: Any, x: Any) -> Any:
    """Return log(cosh(x)) without computing cosh(x), which overflows for large x."""
    return xp.logaddexp(x, -x) - math.log(2)  # xp has the functions of NumPy, or of CuPy for arrays on a GPU


x = tl.tensor([-800.0, -1.0, 0.0, 2.0], requires_grad=True)
y = log_cosh(x)
y.sum().backward()
print("log_cosh", y)
print("gradient", x.grad)


# ---- 2. Is the rule right? ----------------------------------------------------------------------


def check_gradient(f: Callable[..., tl.Tensor], *args: tl.Tensor) -> float:
    """Compare the gradients of f with difference quotients in float64, and return the largest difference.

    The result of f is multiplied by random weights and added up, because a plain sum would hide errors that cancel. The
    slope of this loss is measured along a random direction for each argument.
    """
    args = tuple(a.double() for a in args)
    weights = tl.randn(*f(*args).shape, dtype=tl.float64)
    worst = 0.0
    for i, a in enumerate(args):

        def loss(value: tl.Tensor, i: int = i) -> tl.Tensor:
            return (f(*args[:i], value, *args[i + 1 :]) * weights).sum()

        direction, h = tl.randn(*a.shape, dtype=tl.float64), 1e-5
        slope = (loss(a + h * direction) - loss(a - h * direction)) / (2 * h)
        along = (func.grad(loss)(a) * direction).sum()
        worst = max(worst, abs(slope - along).item())
    return worst


tl.manual_seed(0)
points = tl.randn(3, 4)
print(f"\nfirst derivative:  off by {check_gradient(log_cosh, points):.0e}")

# The rule is made of ops, and these have gradients too. So the second derivative, 1 - tanh(x)^2, needs no other rule.
second = func.grad(func.grad(log_cosh))
print(f"second derivative: {second(tl.tensor(0.5)).item():.6f}, should be {1 - math.tanh(0.5) ** 2:.6f}")


# ---- 3. One backward function for all inputs ----------------------------------------------------

# This is the gated linear unit, sigmoid(gate) * x (Dauphin et al., "Language Modeling with Gated Convolutional
# Networks", 2017). Two rules would each compute the sigmoid again. Instead the function returns it as a second value,
# which the op saves under the name in aux. One backward function then uses it for both gradients.


def glu_backward(xp: Any, g: Any, x: Any, s: Any) -> tuple[Any, Any]:
    """Return the gradients of gate and x, as raw arrays."""
    return g * x * s * (1 - s), g * s


@tl.op(backward=glu_backward, composite=lambda gate, x: tl.sigmoid(gate) * x, aux=["s"], dtypes="floating")
def glu(xp: Any, gate: Any, x: Any) -> Any:
    """Return sigmoid(gate) * x."""
    s = 1 / (1 + xp.exp(-gate))
    return s * x, s  # the result, and then the values of aux


gate, value = tl.randn(3, 4), tl.randn(3, 4)
print(f"\nglu, fused backward: off by {check_gradient(glu, gate, value):.0e}")


def slope_of_glu(gate: tl.Tensor, x: tl.Tensor) -> tl.Tensor:
    """Return the first derivative. Its own derivative, below, needs the plain ops of `composite`."""

    def total(gate: tl.Tensor) -> tl.Tensor:
        return glu(gate, x).sum()

    return func.grad(total)(gate)


print(f"glu, second order:   off by {check_gradient(slope_of_glu, gate, value):.0e}")

# ---- 4. The error for a rule with a mistake -----------------------------------------------------

try:  # the function has no argument z, so the op cannot save one for the rule

    @tl.op(lambda g, z: g * z)
    def identity(xp: Any, x: Any) -> Any:
        return x

except TypeError as error:
    print(f"\n{error}")
