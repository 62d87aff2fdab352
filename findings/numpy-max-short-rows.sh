#!/bin/sh
# NumPy's maximum of each row takes thirty times as long as that of the same columns, if rows are short.
#
# Expected: the maximum of each of 100,000 rows of two numbers takes about as long as comparing two columns.
# Found (NumPy 2.4.6): `x.max(axis=1)` takes 30 times or more as long as `np.maximum(x[:, 0], x[:, 1])`, with equal
# results, although the strides of the columns are those of the rows.
# tensorlite compares columns where rows have few entries.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import timeit

import numpy as np

print("numpy", np.__version__)
x = np.random.default_rng(0).standard_normal((100_000, 2)).astype(np.float32)
fastest = lambda f: min(timeit.repeat(f, number=1, repeat=30)) * 1e6
rows, columns = fastest(lambda: x.max(axis=1)), fastest(lambda: np.maximum(x[:, 0], x[:, 1]))
print(f"max(axis=1) {rows:.0f} us, np.maximum of the columns {columns:.0f} us")
assert (x.max(axis=1) == np.maximum(x[:, 0], x[:, 1])).all()
assert rows > 10 * columns
END
