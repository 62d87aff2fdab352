#!/bin/sh
# A full backward hook of PyTorch gets zeros for inputs without a gradient, but None for outputs without one.
#
# Expected: `grad_input` and `grad_output` say in the same way that there is no gradient: None.
# Found (PyTorch 2.13.0): an input that does not require gradients gets a tensor of zeros, in its own dtype, even if
# that is int64. An output that the loss does not use gets None. So a hook that counts or prints gradients sees one
# that no backward pass computed.
# tensorlite's hooks do the same, because code that was written for PyTorch's hooks tests for exactly these values.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch


class Scale(torch.nn.Module):
    def forward(self, x, factor, ids):
        return x * factor, x + 1


module, seen = Scale(), []
module.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append((grad_input, grad_output)))
x = torch.ones(2, requires_grad=True)
used, unused = module(x, torch.ones(2), torch.ones(3, dtype=torch.int64))
used.sum().backward()
((grad_input, grad_output),) = seen
print("PyTorch", torch.__version__)
print("grad_input ", grad_input)
print("grad_output", grad_output)
assert [g.tolist() for g in grad_input] == [[1.0, 1.0], [0.0, 0.0], [0, 0, 0]]
assert grad_input[2].dtype == torch.int64
assert grad_output[0].tolist() == [1.0, 1.0]
assert grad_output[1] is None
END
