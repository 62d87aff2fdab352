"""Derivatives of derivatives, as functions.

    python examples/04_second_derivatives.py

tl.func.grad(f) returns a function that computes the gradient of f. It can be differentiated like f. This gives the
Hessian (the matrix of second derivatives), Newton's method, and the product of the Hessian with a vector.
"""

import math
from collections.abc import Callable

import numpy as np

import tensorlite as tl
from tensorlite import func

tl.set_default_dtype(tl.float64)  # 16 digits instead of 7, because this script compares derivatives closely

# ---- 1. The derivative of a derivative ----------------------------------------------------------

x = tl.tensor(0.7)
f: Callable[[tl.Tensor], tl.Tensor] = tl.sin
print("order   derivative of sin at 0.7")
for order in range(5):
    expected = math.sin(0.7 + order * math.pi / 2)  # sin, cos, -sin, -cos, sin
    print(f"{order:5}   {f(x).item():+.12f}   off by {abs(f(x).item() - expected):.0e}")
    f = func.grad(f)  # the next derivative, which the next round prints


# ---- 2. A Hessian, and Newton's method ----------------------------------------------------------


def rosenbrock(p: tl.Tensor) -> tl.Tensor:
    """Return the height of a curved, nearly flat valley. Its lowest point is 0 at (1, 1).

    Gradient descent needs thousands of steps to get there.
    """
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


p = tl.tensor([-1.2, 1.0])
print(f"\nHessian at the start:\n{func.hessian(rosenbrock)(p)}")

# A step of Newton's method goes to the lowest point of the parabola that has the same slope and curvature here.
print("\nstep   Newton's method in Rosenbrock's valley")
for step in range(8):
    value, gradient = func.value_and_grad(rosenbrock)(p)
    print(f"{step:4}   f({p[0].item():+.6f}, {p[1].item():+.6f}) = {value.item():.3e}")
    if value.item() < 1e-20:
        break
    curvature = func.hessian(rosenbrock)(p)
    p = p - tl.from_numpy(np.linalg.solve(curvature.numpy(), gradient.numpy()))


# ---- 3. The Hessian times a vector, without the Hessian -----------------------------------------


def chain(q: tl.Tensor) -> tl.Tensor:
    """Return Rosenbrock's function in many dimensions."""
    return ((1 - q[:-1]) ** 2 + 100 * (q[1:] - q[:-1] ** 2) ** 2).sum()


tl.manual_seed(0)
n = 10_000  # the Hessian would have n^2 = 100 million entries
q, v = tl.randn(n), tl.randn(n)
_, product = func.hvp(chain, (q,), (v,))  # costs as much as a few gradients

slope, h = func.grad(chain), 1e-5
quotient = (slope(q + h * v) - slope(q - h * v)) / (2 * h)  # H v is the change of the gradient along v
error = ((product - quotient).norm() / product.norm()).item()
print(f"\nH v in {n:,} dimensions: off by {error:.0e}, relative to its length")


# ---- 4. Products with a Jacobian (the matrix of first derivatives), from both sides -------------


def polar(z: tl.Tensor) -> tl.Tensor:
    """Return radius and angle of a point in the plane."""
    return tl.stack([z.norm(), tl.atan2(z[1], z[0])])


z, u, v = tl.tensor([3.0, 4.0]), tl.tensor([1.0, 0.5]), tl.tensor([0.0, 1.0])
output, along = func.jvp(polar, (z,), (v,))  # J v is the change of the output if the input moves along v
_, pull = func.vjp(polar, z)  # pull(u) is J^T u: the gradient of <u, output> at z
J = func.jacobian(polar)(z)

print(f"\npolar({z.tolist()}) = {output.tolist()}")
print(f"J =\n{J}")
print(f"jvp: {along.tolist()}, is J v: {(J @ v).tolist()}")
print(f"<u, J v> = {(u @ along).item():.12f} = {(pull(u)[0] @ v).item():.12f} = <J^T u, v>")
