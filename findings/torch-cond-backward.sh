#!/bin/sh
# The gradient of PyTorch's linalg.cond raises an error about a change in place that the user did not make.
#
# Expected: cond(A, 1) is norm(A, 1) * norm(inv(A), 1), and so is its gradient.
# Found (PyTorch 2.13.0): the backward pass of every p other than 2 and -2 says that a variable was modified by an
# inplace operation: cond writes infinities over singular matrices into the inverse that its own graph has saved.
# Written out as the product of both norms, the gradient exists.
# tensorlite computes the product, and its test against PyTorch leaves these p out.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch

a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], requires_grad=True)
print("torch", torch.__version__)
messages = []
for p in (1, "fro", float("inf")):
    product = torch.linalg.norm(a, p) * torch.linalg.norm(torch.linalg.inv(a), p)
    (right,) = torch.autograd.grad(product, a)
    value = torch.linalg.cond(a, p)
    assert torch.allclose(value, product)
    assert right.isfinite().all()
    try:
        torch.autograd.grad(value, a)
    except RuntimeError as error:
        messages.append(str(error))
        print(f"p={p}:", messages[-1][:90])
assert len(messages) == 3
assert all("modified by an inplace operation" in message for message in messages)
END
