#!/bin/sh
# PyTorch's fused attention has gradients that are S times too large where S scores share a large offset.
#
# Expected: a number added to all scores of a query changes neither the result nor a gradient of attention.
# Found (PyTorch 2.13.0, CPU, float32): the result stays, but with 8 keys and a mask of -1e8 for all of them the
# gradients of the values are 8 times as large, and 1.08 times at -1e7. The backward pass computes the softmax again
# from the logsumexp of each row, max + log(sum). Next to a maximum of 1e8 the rounding of float32 loses the logarithm.
# The plain backend is right. A row that is masked completely with -1e8, or with the smallest float, is common in padded
# batches.
# tensorlite keeps the maximum and the sum apart.
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
from torch.nn.attention import SDPBackend, sdpa_kernel


def gradients(backend, offset, keys=8):
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, keys, 4)
    v = torch.ones(1, 1, keys, 4, requires_grad=True)
    mask = torch.full((1, keys), offset)
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(q, k, v, mask)
    (dv,) = torch.autograd.grad(out.sum(), v)
    return out[0, 0, 0, 0].item(), dv[0, 0, :, 0].sum().item()


print("PyTorch", torch.__version__)
for offset in (0.0, -1e4, -1e7, -1e8, torch.finfo(torch.float32).min):
    fused, plain = gradients(SDPBackend.FLASH_ATTENTION, offset), gradients(SDPBackend.MATH, offset)
    print(f"offset {offset:.3g}: output, sum of the values' gradients: fused {fused}, plain {plain}")
smallest = torch.finfo(torch.float32).min
totals = [gradients(SDPBackend.FLASH_ATTENTION, offset)[1] for offset in (0.0, -1e8, smallest)]
assert [round(total, 3) for total in totals] == [1.0, 8.0, 8.0]
assert {gradients(SDPBackend.MATH, offset) for offset in (0.0, -1e8, smallest)} == {(1.0, 1.0)}
END
