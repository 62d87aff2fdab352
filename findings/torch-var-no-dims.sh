#!/bin/sh
# In PyTorch x.var(dim=()) has the value of x.var(), but another gradient, which is infinite.
#
# Expected: where two calls have equal values everywhere, they have equal gradients.
# Found (PyTorch 2.13.0, CPU): var and std read an empty list of dimensions as all dimensions, and their backward pass
# reads it as none. It counts one entry, so the gradient is 2 (x - mean) / (1 - correction): infinite for the default
# correction of 1, n times too large for 0, and of the wrong sign for a larger one. sum, mean and logsumexp with
# keepdim read the same list as all dimensions in both passes.
# tensorlite reads it as all dimensions in both passes. Its random calls against PyTorch leave it out for var and std.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import math

import torch

x = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
print("PyTorch", torch.__version__)
table = {}
for correction in (1, 0, 2):
    values = x.var(correction=correction), x.var(dim=(), correction=correction)
    gradients = [torch.autograd.grad(v, x)[0].tolist() for v in values]
    table[correction] = [v.item() for v in values], gradients
    print("correction", correction, "values", *table[correction][0], "gradients", *gradients)
assert all(alone == empty for (alone, empty), _ in table.values())
assert table[1][1] == [[-2.0, -1.0, 3.0], [-math.inf, -math.inf, math.inf]]
assert table[0][1][1] == [-4.0, -2.0, 6.0] != table[0][1][0]
assert table[2][1] == [[-4.0, -2.0, 6.0], [4.0, 2.0, -6.0]]
END
