#!/bin/sh
# In numba, the sum of 2**25 ones in float32 is 2**24.
#
# Expected: numba's `a.sum()` is about as accurate as NumPy's, which it stands for. NumPy adds in pairs of blocks, so
# its error grows with the logarithm of the length.
# Found (numba 0.68.1): the sum is one accumulator in the dtype of the array, without blocks. From 2**24 on, adding 1
# to a float32 changes nothing. A mean has the same error.
# tensorlite's compiled kernels let the compiler split the sum of a row into several accumulators.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 numba==0.68.1
cd "$folder"
venv/bin/python - <<'END'
import numba
import numpy as np


@numba.njit
def total(x):
    return x.sum()


@numba.njit
def mean(x):
    return x.mean()


x = np.ones(2**25, np.float32)
print("numba", numba.__version__, "with NumPy", np.__version__)
print("sum of", x.size, "ones: NumPy", int(x.sum()), " numba", int(total(x)))
print("their mean: NumPy", float(x.mean()), " numba", float(mean(x)))
assert x.sum() == 2**25
assert total(x) == 2**24
assert mean(x) == 0.5
END
