#!/bin/sh
# In numba, the process that compiles a cached function computes other digits than the processes that load it.
#
# Expected: cache=True saves the machine code, so the first process and the later ones compute the same bits.
# Found (numba 0.68.1): a cached function calls another one, with fastmath. In the process that compiles, the call
# reaches the copy that was compiled on its own. The saved machine code contains a second copy, optimised once more,
# whose sums are added in another order, and later processes call that one. With forceinline=True on the inner function
# there is only one copy, and all processes agree.
# tensorlite inlines every compiled function into its callers, and a test compares a compiling with a loading process.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 numba==0.68.1
cd "$folder"
for inline in False True; do
    cat > "normalise_$inline.py" <<END
import hashlib

import numba
import numpy as np


@numba.njit(fastmath=True, forceinline=$inline)
def normalise(x, y):
    top = x[0]
    for j in range(1, x.size):
        top = max(top, x[j])
    total = np.float32(0)
    for j in range(x.size):
        e = x[j] - top
        e = e * e * e + e * e
        y[j] = e
        total += e
    part = np.float32(1) / total
    for j in range(x.size):
        y[j] *= part


@numba.njit(cache=True)
def normalise_rows(x, y, again):
    for i in range(len(x)):
        normalise(x[i], y[i])
    if again:
        for i in range(len(x)):
            normalise(y[i], y[i])


x = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
y = np.empty_like(x)
normalise_rows(x, y, False)
print(hashlib.sha256(y.tobytes()).hexdigest()[:16])
END
done
first=$(venv/bin/python normalise_False.py)
second=$(venv/bin/python normalise_False.py)
third=$(venv/bin/python normalise_False.py)
echo "numba $(venv/bin/python -c 'import numba; print(numba.__version__)')"
echo "hash of the result in the process that compiles: $first"
echo "in the second and third process:                 $second $third"
[ "$second" = "$third" ]
[ "$first" != "$second" ]
first=$(venv/bin/python normalise_True.py)
second=$(venv/bin/python normalise_True.py)
echo "with forceinline=True, first and second process: $first $second"
[ "$first" = "$second" ]
