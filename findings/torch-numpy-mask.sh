#!/bin/sh
# In PyTorch a NumPy mask next to an ellipsis selects other entries than the same mask as a tensor.
#
# Expected: x[mask, ..., 0:1] is the same for a mask that is a NumPy array and for torch.tensor(mask), as NumPy has it.
# Found (PyTorch 2.13.0, CPU): the ellipsis counts a NumPy mask of n dimensions as one dimension. So it stands for n - 1
# dimensions too many, and what comes after it indexes past the last dimension or not at all: the slice 0:1 is ignored
# in silence, and an integer raises "out of bounds". A 0-d mask counts as one dimension instead of none, so the number
# after the ellipsis indexes the wrong dimension. Without the ellipsis both kinds of mask agree.
# tensorlite counts the dimensions of every mask. Its random calls against PyTorch use masks that are tensors.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import numpy as np
import torch

a = np.arange(24).reshape(2, 3, 4)
x, mask = torch.tensor(a), np.ones((2, 3), bool)
shapes = {
    "NumPy's x and mask": a[mask, ..., 0:1].shape,
    "a tensor as mask": tuple(x[torch.tensor(mask), ..., 0:1].shape),
    "a NumPy array as mask": tuple(x[mask, ..., 0:1].shape),
}
print("PyTorch", torch.__version__, "NumPy", np.__version__)
print("x[mask, ..., 0:1]", shapes)
assert list(shapes.values()) == [(6, 1), (6, 1), (6, 4)]
b = np.arange(6).reshape(2, 1, 3)
y, true = torch.tensor(b), np.array(True)
values = [b[true, ..., 0].tolist(), y[torch.tensor(True), ..., 0].tolist(), y[true, ..., 0].tolist()]
print("y[true, ..., 0]", values)
assert values == [[[[0], [3]]], [[[0], [3]]], [[[0, 1, 2], [3, 4, 5]]]]
END
