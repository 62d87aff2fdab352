#!/bin/sh
# In numba, an array that a cached function returns has a dtype that `is` not the one of NumPy, from the second run on.
#
# Expected: np.dtype("float32") is one object in a process, so that `a.dtype is np.dtype("float32")` is a fast test.
# Found (numba 0.68.1, numpy 2.4.6): it is true in the process that compiles. A process that loads the machine code from
# the cache unpickles the dtype, and unpickling makes another object, which is equal and not identical. Arrays that
# pickle itself loads have such a dtype, too; those of np.load and copy.deepcopy have not.
# tensorlite compares dtypes by value: code that used `is` took a slower path, with other last digits, in later runs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 numba==0.68.1
cd "$folder"
cat > twice.py <<'END'
import copy
import io
import pickle

import numba
import numpy as np


@numba.njit(cache=True)
def twice(x):
    y = np.empty_like(x)
    for i in range(x.size):
        y[i] = x[i] + x[i]
    return y


x = np.ones(3, np.float32)
file = io.BytesIO()
np.save(file, x)
file.seek(0)
assert twice(x).dtype == x.dtype
assert pickle.loads(pickle.dumps(x)).dtype is not x.dtype
assert copy.deepcopy(x).dtype is np.load(file).dtype is x.dtype
print(twice(x).dtype is x.dtype)
END
first=$(venv/bin/python twice.py)
second=$(venv/bin/python twice.py)
venv/bin/python -c 'import numba, numpy; print("numba", numba.__version__, "numpy", numpy.__version__)'
echo "the dtype of the result is the dtype of the argument: $first in the first process, $second in the second"
[ "$first" = True ]
[ "$second" = False ]
