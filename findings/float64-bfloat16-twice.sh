#!/bin/sh
# ml_dtypes and PyTorch round a float64 number twice on its way to bfloat16.
#
# Expected: a conversion gives the nearest number of the new type. NumPy's conversion of float64 to float16 does.
# Found (ml_dtypes 0.6.0, PyTorch 2.13.0, CPU): both go through float32. 1 + 2**-8 + 2**-30 is above the middle between
# the bfloat16 numbers 1 and 1.0078125, but float32 rounds it to the middle, and the second rounding takes the even one,
# which is 1. Integers of 64 bits take the same way. PyTorch does so for float16, too.
# tensorlite rounds to odd in between, so that the second rounding sees which side of the middle the number was on.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 ml-dtypes==0.6.0 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import ml_dtypes
import numpy as np
import torch

print("ml_dtypes", ml_dtypes.__version__, "torch", torch.__version__)
x = 1 + 2**-8 + 2**-30
near = [1.0, 1.0078125]
found = {
    "ml_dtypes": float(np.float64(x).astype(ml_dtypes.bfloat16)),
    "torch": torch.tensor(x, dtype=torch.float64).to(torch.bfloat16).item(),
}
print("bfloat16 of", x, "is", found, "and the nearest number is", min(near, key=lambda y: abs(y - x)))
integer = 2**24 + 2**16 + 1
integers = {
    "ml_dtypes": float(np.array(integer).astype(ml_dtypes.bfloat16)),
    "torch": torch.tensor(integer).to(torch.bfloat16).item(),
}
print("bfloat16 of", integer, "is", integers, "and the nearest number is", 2**24 + 2**17)
h = 1 + 2**-11 + 2**-30
halves = {"numpy": float(np.float64(h).astype(np.float16)), "torch": torch.tensor(h, dtype=torch.float64).half().item()}
print("float16 of", h, "is", halves)
assert found == {"ml_dtypes": 1.0, "torch": 1.0}
assert set(integers.values()) == {float(2**24)}
assert halves == {"numpy": 1.0009765625, "torch": 1.0}
END
