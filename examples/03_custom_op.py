"""An op of your own: a function on arrays, and the rule for its gradient.

    python examples/03_custom_op.py

tl.op makes one from a plain function. The first op below has a rule made of other ops, which is all that gradients of
any order need. The second has a hand-written backward pass on raw arrays, for speed, and beside it the same maths in
plain ops, for the orders above the first.
"""

import math

import tensorlite as tl
from tensorlite import func

# ---- 1. a forward and a rule --------------------------------------------------------------------

# log cosh x is about x^2 / 2 near 0 and |x| - log 2 far out: a loss that is smooth and does not mind outliers.


@tl.op(lambda g, x: g * tl.tanh(x))  # d/dx log cosh x = tanh x; the rule names x, so x is what will be saved
def log_cosh(xp, x):
    """log(cosh(x)), for any x; cosh(x) itself overflows early."""
    return xp.logaddexp(x, -x) - math.log(2)  # xp: NumPy or, for an array on a GPU, CuPy


x = tl.tensor([-800.0, -1.0, 0.0, 2.0], requires_grad=True)
y = log_cosh(x)
y.sum().backward()
print("log_cosh", y)
print("gradient", x.grad)


# ---- 2. is the rule right? ----------------------------------------------------------------------


def check_gradient(f, *args):
    """The largest difference between f's gradients and difference quotients, along a random direction in float64.

    Random weights make a scalar of f's result: a plain sum would hide mistakes that cancel.
    """
    args = [a.double() for a in args]
    weights = tl.randn(*f(*args).shape, dtype=tl.float64)
    worst = 0.0
    for i, a in enumerate(args):

        def loss(value, i=i):
            return (f(*args[:i], value, *args[i + 1 :]) * weights).sum()

        direction, h = tl.randn(*a.shape, dtype=tl.float64), 1e-5
        slope = (loss(a + h * direction) - loss(a - h * direction)) / (2 * h)
        along = (func.grad(loss)(a) * direction).sum()
        worst = max(worst, abs(slope - along).item())
    return worst


tl.manual_seed(0)
points = tl.randn(3, 4)
print(f"\nfirst derivative:  off by {check_gradient(log_cosh, points):.0e}")

# The rule is made of ops, so its own gradient is known: the second derivative, 1 - tanh(x)^2, comes for free.
second = func.grad(func.grad(log_cosh))
print(f"second derivative: {second(tl.tensor(0.5)).item():.6f}, should be {1 - math.tanh(0.5) ** 2:.6f}")


# ---- 3. a fused op ------------------------------------------------------------------------------

# The gated linear unit, sigmoid(gate) * x (Dauphin et al., 2017). Two rules would each compute the sigmoid
# again; one backward for both inputs does not have to, because forward hands it over (`aux`).


def glu_backward(xp, g, x, s):
    """The gradients for gate and x, on raw arrays."""
    return g * x * s * (1 - s), g * s


@tl.op(backward=glu_backward, composite=lambda gate, x: tl.sigmoid(gate) * x, aux=["s"], dtypes="floating")
def glu(xp, gate, x):
    """sigmoid(gate) * x."""
    s = 1 / (1 + xp.exp(-gate))
    return s * x, s  # the result, then what backward may name


gate, value = tl.randn(3, 4), tl.randn(3, 4)
print(f"\nglu, fused backward: off by {check_gradient(glu, gate, value):.0e}")


def slope_of_glu(gate, x):
    return func.grad(lambda v: glu(v, x).sum())(gate)  # differentiated once more below, through the composite


print(f"glu, second order:   off by {check_gradient(slope_of_glu, gate, value):.0e}")

# ---- 4. mistakes are named ----------------------------------------------------------------------

try:
    tl.op(lambda g, z: g * z)(lambda xp, x: x)
except TypeError as error:
    print(f"\n{error}")
