#!/bin/sh
# Inside PyTorch's inference_mode, enable_grad says that it records, and records nothing; torch.func.grad still works.
#
# Expected: where torch.is_grad_enabled() is True, an op on a tensor that requires gradients is recorded.
# Found (PyTorch 2.13.0): with enable_grad inside inference_mode, is_grad_enabled() is True and requires_grad=True is
# accepted, but the result of an op does not require gradients, without a word. torch.func.grad in the same place
# computes the right gradient.
# tensorlite's inference_mode is no_grad under another name, so enable_grad inside it records.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch

with torch.inference_mode(), torch.enable_grad():
    x = torch.ones(2, requires_grad=True)
    y = (x * 2).sum()
    enabled = torch.is_grad_enabled()
    gradient = torch.func.grad(lambda t: (t * t).sum())(torch.ones(2))
print("PyTorch", torch.__version__)
print(f"enabled {enabled}, x requires gradients {x.requires_grad}, y requires gradients {y.requires_grad}")
print("torch.func.grad gives", gradient)
assert enabled
assert x.requires_grad
assert not y.requires_grad
assert gradient.tolist() == [2.0, 2.0]
END
