#!/bin/sh
# Which value stays at a repeated index depends on the memory layout of the index, in NumPy.
#
# Expected: `a[index] = values` with an entry that comes twice leaves the last value, as NumPy's quickstart says
# ("the assignment is done several times, leaving behind the last value").
# Found (NumPy 2.4.6): equal indices and values give other results if they are reversed views instead of copies. NumPy
# walks through memory, not through the index. (Its reference promises no order.)
# tensorlite makes index and values contiguous first, so the last value stays (tensorlite/backends/cpu/kernels.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import numpy as np

index, values = np.array([[0, 1], [1, 1]])[:, ::-1], np.array([[1.0, 2.0], [3.0, 4.0]])[:, ::-1]
by_views, by_copies = np.zeros(2), np.zeros(2)
by_views[index] = values
by_copies[index.copy()] = values.copy()

print("NumPy", np.__version__)
print("index", index.tolist(), "values", values.tolist())
print("views: ", by_views)
print("copies:", by_copies)
assert by_copies.tolist() == [1.0, 3.0]
assert by_views.tolist() == [1.0, 4.0]
END
