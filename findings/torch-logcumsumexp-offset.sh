#!/bin/sh
# The gradient of PyTorch's logcumsumexp is wrong where all entries share a large offset.
#
# Expected: adding a constant to all entries adds it to the result, so the gradient stays.
# Found (PyTorch 2.13.0, CPU, float32): at an offset of 1e7, with entries that float32 holds exactly, an entry of the
# gradient is 2.35 instead of 0.89. Its rule subtracts the result, of 1e7, from the logarithm of the incoming gradient,
# whose digits are lost beside it. The sum of the gradient is 4.3 instead of 2.5.
# tensorlite keeps the largest entry so far and the sum of exponentials below it apart, and a test adds 1e15.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch


def gradient(offset):
    x = (torch.tensor([1.0, 3.0, 2.0]) + offset).requires_grad_()
    assert (x.detach() - offset).tolist() == [1.0, 3.0, 2.0]
    torch.logcumsumexp(x, 0).backward(torch.tensor([1.0, -0.5, 2.0]))
    return x.grad


near, far = gradient(0.0), gradient(1e7)
print("torch", torch.__version__)
print("gradient at offset 0  ", near.tolist())
print("gradient at offset 1e7", far.tolist())
assert abs(near.sum().item() - 2.5) < 1e-5
assert 2.3 < far[1].item() < 2.4
assert far.sum().item() > 4
END
