#!/bin/sh
# In numba, an array is freed after the last line that names it, although its address is still in use.
#
# Expected: a local array lives until its function returns, as in Python. So a function can take `a.ctypes.data`, and
# pass the address on to other functions until its end.
# Found (numba 0.68.1): numba drops a variable after its last use, and an address does not count as one. The memory goes
# back at once, and a later array of the same function has the same address. If the function names the array once more
# at its end, the array lives.
# Functions of tensorlite that pass addresses on get their memory from their caller.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 numba==0.68.1
cd "$folder"
venv/bin/python - <<'END'
import numba
import numpy as np


def dropped(n):
    first = np.full(n, 7.0)
    address = first.ctypes.data
    second, third = np.full(n, 5.0), np.full(n, 6.0)
    return address == second.ctypes.data or address == third.ctypes.data, second[0] + third[0]


def named_again(n):
    first = np.full(n, 7.0)
    address = first.ctypes.data
    second, third = np.full(n, 5.0), np.full(n, 6.0)
    return address == second.ctypes.data or address == third.ctypes.data, second[0] + third[0] + first[0]


print("numba", numba.__version__, "with NumPy", np.__version__)
print("a later array has the address of an earlier one:")
found = []
for function in (dropped, named_again):
    shared = [function(100)[0], numba.njit(function)(100)[0]]
    print(f"  {function.__name__}: in Python {shared[0]}, in numba {shared[1]}")
    found.append(shared)
assert found == [[False, True], [False, False]]
END
