#!/bin/sh
# NumPy's add.at writes into read-only arrays.
#
# Expected: an array whose flag `writeable` is False cannot be changed by NumPy's functions; each raises ValueError.
# Found (NumPy 2.4.6): np.add.at, np.maximum.at, np.negative.at and the like change it without an error. With a
# broadcast array, which is read-only because its entries share memory, one addition changes every entry. x[0] = 1,
# np.put, np.copyto and out= raise an error as expected.
# tensorlite gives read-only arrays to the functions of users' ops, and compares them afterwards if the function names
# `at` (tensorlite/autograd/user_ops.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import numpy as np

WRITES = {
    "x[0] = 9": lambda x: x.__setitem__(0, 9.0),
    "np.put": lambda x: np.put(x, [0], 9.0),
    "np.add(out=x)": lambda x: np.add(x, 1.0, out=x),
    "np.add.at": lambda x: np.add.at(x, [0], 9.0),
    "np.maximum.at": lambda x: np.maximum.at(x, [0], 9.0),
    "np.negative.at": lambda x: np.negative.at(x, [0]),
}

print("NumPy", np.__version__)
found = {}
for name, write in WRITES.items():
    x = np.ones(3)
    x.flags.writeable = False
    try:
        write(x)
        found[name] = "changed" if x[0] != 1.0 else "unchanged"
    except ValueError as error:
        found[name] = str(error)
    print(f"{name:16} {found[name]}")
wide = np.broadcast_to(np.zeros(1), (4,))
np.add.at(wide, [0], 1.0)
print("broadcast        ", wide)
assert [name for name, what in found.items() if what == "changed"] == ["np.add.at", "np.maximum.at", "np.negative.at"]
assert wide.tolist() == [1.0] * 4
END
