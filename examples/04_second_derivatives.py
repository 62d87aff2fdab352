"""Derivatives of derivatives: functions that take a function and give another one.

    python examples/04_second_derivatives.py

tl.func.grad(f) is a function like f, so it can be differentiated again. From that follow the Hessian, its product with
a vector without forming it, and Newton's method.
"""

import math

import numpy as np

import tensorlite as tl
from tensorlite import func

tl.set_default_dtype(tl.float64)  # Newton's method likes all the digits it can get

# ---- 1. grad of grad ----------------------------------------------------------------------------

x = tl.tensor(0.7)
f = tl.sin
print("order   derivative of sin at 0.7")
for order in range(5):
    expected = math.sin(0.7 + order * math.pi / 2)
    print(f"{order:5}   {f(x).item():+.12f}   off by {abs(f(x).item() - expected):.0e}")
    f = func.grad(f)


# ---- 2. a Hessian, and Newton's method ----------------------------------------------------------


def rosenbrock(p):
    """A curved valley whose floor is nearly flat: 0 at (1, 1). Gradient descent takes thousands of steps."""
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


p = tl.tensor([-1.2, 1.0])
print(f"\nHessian at the start:\n{func.hessian(rosenbrock)(p)}")

print("\nstep   Newton on the Rosenbrock valley")
for step in range(8):
    value, slope = func.value_and_grad(rosenbrock)(p)
    print(f"{step:4}   f({p[0].item():+.6f}, {p[1].item():+.6f}) = {value.item():.3e}")
    if value.item() < 1e-20:
        break
    curvature = func.hessian(rosenbrock)(p)
    p = p - tl.from_numpy(np.linalg.solve(curvature.numpy(), slope.numpy()))  # may go uphill, and be the shorter for it


# ---- 3. Hessian times vector, without the Hessian -----------------------------------------------


def chain(q):
    """Rosenbrock's function in many dimensions."""
    return ((1 - q[:-1]) ** 2 + 100 * (q[1:] - q[:-1] ** 2) ** 2).sum()


tl.manual_seed(0)
n = 10_000  # the Hessian would have n^2 = 100 million entries
q, v = tl.randn(n), tl.randn(n)
_, product = func.hvp(chain, (q,), (v,))  # for the price of a few gradients

slope, h = func.grad(chain), 1e-5
quotient = (slope(q + h * v) - slope(q - h * v)) / (2 * h)  # what H v means: how the gradient changes along v
print(f"\nH v in {n:,} dimensions: off by {((product - quotient).norm() / product.norm()).item():.0e}, relative")


# ---- 4. forward and backward products with a Jacobian -------------------------------------------


def polar(z):
    """Radius and angle of a point in the plane."""
    return tl.stack([z.norm(), tl.atan2(z[1], z[0])])


z, u, v = tl.tensor([3.0, 4.0]), tl.tensor([1.0, 0.5]), tl.tensor([0.0, 1.0])
output, along = func.jvp(polar, (z,), (v,))  # J v: how the output changes when the input moves along v
_, pull = func.vjp(polar, z)  # J^T u: how the input must change to move the output along u
J = func.jacobian(polar)(z)

print(f"\npolar({z.tolist()}) = {output.tolist()}")
print(f"J =\n{J}")
print(f"jvp: {along.tolist()}, is J v: {(J @ v).tolist()}")
print(f"<u, J v> = {(u @ along).item():.12f} = {(pull(u)[0] @ v).item():.12f} = <J^T u, v>")
