#!/bin/sh
# PyTorch's exact GELU of infinity is infinity in a tensor of one entry, and NaN in a tensor of three.
#
# Expected: one value for one input, whatever the shape; the limit of x cdf(x) is infinity at infinity.
# Found (PyTorch 2.13.0, CPU): in float32 and bfloat16, a tensor of three or more entries gives NaN, one entry gives
# infinity. float64, float16 and the tanh form give infinity at both sizes. At minus infinity, where the limit is 0, all
# of them give NaN.
# tensorlite gives the limits, infinity and 0, at every size and in every dtype.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch
from torch.nn.functional import gelu

print("torch", torch.__version__)
infinity = float("inf")
rows = {}
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for form in ("none", "tanh"):
        found = [gelu(torch.full((n,), infinity, dtype=dtype), approximate=form)[0].item() for n in (1, 3)]
        rows[str(dtype), form] = [str(value) for value in found]
        print(dtype, form, "of one entry", found[0], "of three", found[1])
changes = {key for key, found in rows.items() if found == ["inf", "nan"]}
assert changes == {("torch.float32", "none"), ("torch.bfloat16", "none")}
assert all(found == ["inf", "inf"] for key, found in rows.items() if key not in changes)
below = [gelu(torch.full((n,), -infinity), approximate=form)[0].item() for n in (1, 3) for form in ("none", "tanh")]
print("at minus infinity", below)
assert all(value != value for value in below)
END
