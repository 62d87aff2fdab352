#!/bin/sh
# In numba, adding 1 to a large uint64 gives a negative number.
#
# Expected: NumPy's uint64 plus 1 is a uint64; numba gives the same, or its older rule for uint64 with int64, a
# float64.
# Found (numba 0.68.1): the literal makes the result an int64, so numbers from 2**63 on become negative. A shift to the
# right keeps uint64, a floor division does not. Counter-based random numbers and hashes are made of such operations.
# With np.uint64(1) instead of 1 both agree.
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
def add(x):
    return x + 1


@numba.njit
def halve(x):
    return x // 2


@numba.njit
def shift(x):
    return x >> 1


@numba.njit
def add_unsigned(x):
    return x + np.uint64(1)


x = np.uint64(2**63 + 1)
print("numba", numba.__version__, "with NumPy", np.__version__)
print("x      ", int(x))
print("x + 1  ", int(x + 1), "in NumPy,", add(x), "in numba")
print("x // 2 ", int(x // 2), "in NumPy,", halve(x), "in numba")
print("x >> 1 ", int(x >> 1), "in NumPy,", shift(x), "in numba")
assert add(x) == int(x + 1) - 2**64 < 0
assert halve(x) < 0 < int(x // 2)
assert shift(x) == int(x >> 1)
assert add_unsigned(x) == int(x + 1)
END
