#!/bin/sh
# Three spellings of ReLU in PyTorch have three gradients at 0.
#
# Expected: functions with equal values everywhere have equal gradients.
# Found (PyTorch 2.13.0, CPU): at 0 the gradient of relu(x) is 0, of x.clamp(min=0) 1, and of maximum(x, 0) one half.
# At its two corners hardtanh has 0 and clamp(-1, 1) has 1. Each is a valid subgradient, and each function keeps to
# one. It matters where zeros are common: after another ReLU, in masked data, or with zero-initialised layers. In the
# same way, for equal entries, x.amax() shares the gradient, x.max(0) gives it to the first, and x.cummax(0) to the
# last.
# Gradient checks against PyTorch need the same spelling on both sides, or inputs away from the corner.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch
import torch.nn.functional as F


def gradient(f, values):
    x = torch.tensor(values, requires_grad=True)
    return torch.autograd.grad(f(x).sum(), x)[0].tolist()


zero = torch.zeros(1)
relus = {
    "relu(x)": gradient(F.relu, [0.0]),
    "x.clamp(min=0)": gradient(lambda x: x.clamp(min=0), [0.0]),
    "maximum(x, 0)": gradient(lambda x: torch.maximum(x, zero), [0.0]),
}
corners = {
    "hardtanh(x)": gradient(F.hardtanh, [-1.0, 1.0]),
    "x.clamp(-1, 1)": gradient(lambda x: x.clamp(-1, 1), [-1.0, 1.0]),
}
ties = {
    "x.amax(0)": gradient(lambda x: x.amax(0), [3.0, 3.0]),
    "x.max(0).values": gradient(lambda x: x.max(0).values, [3.0, 3.0]),
    "x.cummax(0).values[-1]": gradient(lambda x: x.cummax(0).values[-1], [3.0, 3.0]),
}
print("PyTorch", torch.__version__)
for title, table in ("at 0", relus), ("at -1 and 1", corners), ("at [3, 3]", ties):
    print(title, table)
assert list(relus.values()) == [[0.0], [1.0], [0.5]]
assert list(corners.values()) == [[0.0, 0.0], [1.0, 1.0]]
assert list(ties.values()) == [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
END
