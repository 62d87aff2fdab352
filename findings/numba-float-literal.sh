#!/bin/sh
# In numba, `x * 0.5` of a float32 is float64, where NumPy 2 keeps float32.
#
# Expected: a Python number does not change the dtype of an array, since NumPy 2 (NEP 50). numba compiles NumPy code,
# and version 0.68 runs with NumPy 2.
# Found (numba 0.68.1): a float literal is a float64. An array times 0.5 becomes twice as large, and a loop over
# float32 computes in float64, with half as many numbers in a vector register. An int literal does not have this
# effect.
# tensorlite's compiled kernels convert each constant by np.float32(...).
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
def by_float(x):
    return x * 0.5


@numba.njit
def by_int(x):
    return x * 2


x = np.ones(4, np.float32)
print("numba", numba.__version__, "with NumPy", np.__version__)
print("x * 0.5 in NumPy:", (x * 0.5).dtype, " in numba:", by_float(x).dtype)
print("x * 2   in NumPy:", (x * 2).dtype, " in numba:", by_int(x).dtype)
assert (x * 0.5).dtype == (x * 2).dtype == by_int(x).dtype == np.float32
assert by_float(x).dtype == np.float64
END
