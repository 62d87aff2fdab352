#!/bin/sh
# HIPS autograd's gradient of a product is NaN where one factor is 0, though the derivative exists.
#
# Expected: the derivative of a * b * c for a is b * c, also where a is 0.
# Found (autograd 1.9.1): the rule of np.prod divides the product by each factor, and 0 / 0 is NaN. The other entries
# are right. Written as x[0] * x[1] * x[2], the gradient is right everywhere. The rule of np.std divides in the same
# way, so the gradient is NaN where all numbers are equal.
# tensorlite computes the gradient of prod from products of the other factors if one of them is 0, and its tests put
# zeros there.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 autograd==1.9.1
cd "$folder"
venv/bin/python - <<'END'
import warnings
from importlib.metadata import version

import autograd.numpy as np
from autograd import grad

warnings.simplefilter("ignore", RuntimeWarning)
x = np.array([0.0, 2.0, 3.0])
by_prod, by_hand = grad(np.prod)(x), grad(lambda x: x[0] * x[1] * x[2])(x)
by_std = grad(np.std)(np.array([1.0, 1.0]))
print("autograd", version("autograd"))
print("gradient of np.prod([0, 2, 3]):", by_prod, " of the product written out:", by_hand)
print("gradient of np.std([1, 1]):", by_std)
assert np.isnan(by_prod[0])
assert by_prod[1:].tolist() == [0.0, 0.0]
assert by_hand.tolist() == [6.0, 0.0, 0.0]
assert np.isnan(by_std).all()
END
