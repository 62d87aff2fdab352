#!/bin/sh
# In NumPy, x ** 3 takes a hundred times as long as x * x * x, and longer if numbers are negative.
#
# Expected: a small integer exponent costs a few multiplications, as x ** 2 does.
# Found (NumPy 2.4.6; measured on x86-64 with AVX-512): only a few exponents such as 2, 0.5 and -1 have a shortcut. The
# others call the power function, which is far slower still for negative numbers. A million float32 took 0.2 ms for x *
# x * x, 1.2 ms for abs(x) ** 3, and 60 ms for x ** 3. The GELU of GPT-2, in its tanh form, has an x ** 3.
# tensorlite's pow multiplies if the exponent is 3 (tensorlite/ops/elementwise.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import time

import numpy as np

x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)


def milliseconds(f):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


y = np.abs(x)
square, product = milliseconds(lambda: x**2), milliseconds(lambda: x * x * x)
cube, positive = milliseconds(lambda: x**3), milliseconds(lambda: y**3)
print("NumPy", np.__version__)
print(f"x ** 2: {square:.2f} ms   x * x * x: {product:.2f} ms   x ** 3: {cube:.2f} ms   abs(x) ** 3: {positive:.2f} ms")
assert np.allclose(x**3, x * x * x, rtol=1e-5)
assert square < 5 * product
assert cube > 10 * product
END
