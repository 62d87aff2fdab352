#!/bin/sh
# Making a OneCycleLR changes the learning rate at which an earlier scheduler of the same optimizer starts.
#
# Expected: SequentialLR([ConstantLR, OneCycleLR]) starts at the constant rate: a third of the optimizer's 0.5.
# Found (PyTorch 2.13.0): it starts at a third of 0.04. OneCycleLR overwrites `initial_lr` of the parameter groups with
# max_lr / div_factor when it is made. SequentialLR resets the rate to `initial_lr` before its first scheduler.
# With an ExponentialLR in the second place the run starts at a third of 0.5.
# tensorlite's OneCycleLR leaves `initial_lr` as the first scheduler of the optimizer set it.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
venv/bin/python - <<'END'
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, OneCycleLR, SequentialLR


def first_rate(make_second):
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    first = ConstantLR(optimizer, factor=1 / 3, total_iters=100)
    SequentialLR(optimizer, [first, make_second(optimizer)], milestones=[3])
    return optimizer.param_groups[0]["lr"]


exponential = first_rate(lambda optimizer: ExponentialLR(optimizer, 0.9))
one_cycle = first_rate(lambda optimizer: OneCycleLR(optimizer, max_lr=1.0, total_steps=10))
print("PyTorch", torch.__version__)
print(f"first rate before ExponentialLR {exponential:.4f}, before OneCycleLR {one_cycle:.4f}")
assert abs(exponential - 0.5 / 3) < 1e-9
assert abs(one_cycle - 0.04 / 3) < 1e-9
END
