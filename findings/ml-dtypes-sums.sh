#!/bin/sh
# NumPy's sum of 10,000 ones in bfloat16 is 256, and its matmul gives float32.
#
# Expected: as for float16, whose sums NumPy adds up pairwise, and whose mean it computes in float32; and one dtype from
# all functions that multiply two matrices.
# Found (ml_dtypes 0.6.0 with NumPy 2.4.6): a sum of bfloat16 is added up one by one in bfloat16. From 256 on the next
# number is 258, so adding 1 changes nothing, and the mean of ones is 0.0256. `np.matmul` of two bfloat16 matrices
# returns float32, `np.dot` and `np.inner` return bfloat16.
# tensorlite adds bfloat16 in float32, and rounds the result of a sum or product once.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 ml-dtypes==0.6.0
cd "$folder"
venv/bin/python - <<'END'
import ml_dtypes
import numpy as np

print("ml_dtypes", ml_dtypes.__version__, "numpy", np.__version__)
sums, means = {}, {}
for dtype in (ml_dtypes.bfloat16, np.float16):
    ones = np.ones(10_000, dtype)
    sums[np.dtype(dtype).name], means[np.dtype(dtype).name] = float(ones.sum()), float(ones.mean())
print("sum of 10,000 ones", sums, "mean", means)
a = np.ones((2, 3), ml_dtypes.bfloat16)
products = {f.__name__: f(a, a.T if f is not np.inner else a).dtype.name for f in (np.matmul, np.dot, np.inner)}
print("products of bfloat16", products)
assert sums == {"bfloat16": 256.0, "float16": 10_000.0}
assert means["float16"] == 1.0 and means["bfloat16"] < 0.03
assert products == {"matmul": "float32", "dot": "bfloat16", "inner": "bfloat16"}
END
