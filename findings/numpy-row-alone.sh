#!/bin/sh
# A row of a matrix product has other bits if it is computed without the other rows.
#
# Expected: row i of X @ B depends on row i of X and on B, so (X @ B)[:1] equals X[:1] @ B.
# Found (NumPy 2.4.6 with OpenBLAS 0.3.31): for a single row NumPy calls the matrix-vector product, whose kernel adds
# in another order. Which larger numbers of rows agree depends on the processor that OpenBLAS chose its kernels for; a
# single row differs with all that were tried (Prescott, Sandybridge, Haswell, Zen, SkylakeX). So a language model that
# writes one token at a time computes other logits than the one that reads the whole text, in the last bits, and two
# equally likely tokens may change places.
# tensorlite's tests compare cached and uncached logits with a tolerance for this reason.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import numpy as np

rng = np.random.default_rng(0)
x = rng.standard_normal((16, 256)).astype(np.float32)
b = rng.standard_normal((256, 128)).astype(np.float32)
whole = x @ b
print("NumPy", np.__version__, np.show_config(mode="dicts")["Build Dependencies"]["blas"]["version"])
for rows in (1, 2, 3, 4, 8, 16):
    part = x[:rows] @ b
    print(f"{rows:2} rows: equal {np.array_equal(part, whole[:rows])}, difference {abs(part - whole[:rows]).max():.1e}")
assert not np.array_equal(x[:1] @ b, whole[:1])
assert np.allclose(x[:1] @ b, whole[:1], atol=1e-4)
assert np.array_equal(x[:16] @ b, whole)
END
