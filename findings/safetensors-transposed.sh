#!/bin/sh
# safetensors saves a transposed NumPy array with its values in the wrong places, and says nothing.
#
# Expected: the numbers that come back from a file equal those of the array, or saving raises an error, as
# safetensors.torch does for tensors that are not contiguous.
# Found (safetensors 0.8.0): safetensors.numpy writes the memory of the array in its own order, under the shape of the
# transposed array. The file is valid, and each number in it is real, but most are at another index.
# tensorlite makes every array contiguous before it saves (tensorlite/serialization.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'END'
import numpy as np
import safetensors
import safetensors.numpy

x = np.arange(6, dtype=np.float32).reshape(2, 3)
loaded = safetensors.numpy.load(safetensors.numpy.save({"x": x, "t": x.T, "copy": np.ascontiguousarray(x.T)}))
print("safetensors", safetensors.__version__, "with NumPy", np.__version__)
print("saved: ", x.T.tolist())
print("loaded:", loaded["t"].tolist())
assert loaded["t"].shape == x.T.shape
assert loaded["t"].ravel().tolist() == x.ravel().tolist() != x.T.ravel().tolist()
assert np.array_equal(loaded["x"], x)
assert np.array_equal(loaded["copy"], x.T)
END
