#!/bin/sh
# Under NumPy 2, hypothesis.extra.numpy.arrays rounds numbers past the bounds of their strategy, and does not report it.
#
# Expected: arrays(np.float32, n, elements=st.floats(0, 1, exclude_max=True)) never has 1.0, and none has an infinity
# with allow_infinity=False. If float32 lacks a number that was drawn, arrays() raises InvalidArgument, which asks for
# st.floats(width=32). hypothesis has a check for that, and with NumPy 1.26.4 it works.
# Found (hypothesis 6.142.1, NumPy 2.3.4): the arrays have 1.0 and infinity. The check compares the number that was
# drawn, a Python float, with the float32 that was stored. Since NEP 50 a Python float takes the dtype of the other
# operand. So both sides are rounded in the same way before they are compared, and are always equal.
# tensorlite's tensors(shape, float32, elements=...) compares in float64 and takes the nearest number within the bounds.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'PYTHON'
import warnings

import hypothesis
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from hypothesis.extra.numpy import arrays

warnings.simplefilter("ignore", RuntimeWarning)  # NumPy 2 warns of an overflow in the cast


def past_bounds(elements, is_outside):
    """Return the entries outside of the bounds, or "an error" if arrays() reports numbers that float32 lacks."""
    found = set()

    @settings(max_examples=2000, database=None, derandomize=True, deadline=None)
    @given(arrays(np.float32, 20, elements=elements, fill=st.nothing()))
    def look(x):
        found.update(float(y) for y in x if is_outside(y))

    try:
        look()
    except InvalidArgument:
        return "an error"
    return sorted(found)


just_below = st.floats(0.999999999, 1, exclude_max=True)
below = past_bounds(just_below, lambda y: y >= 1)
finite = past_bounds(st.floats(1e38, 1e300, allow_infinity=False), lambda y: np.isinf(y))
print(f"hypothesis {hypothesis.__version__}, numpy {np.__version__}")
print(f"    numbers below 1 that are not:  {below}")
print(f"    finite numbers that are not:   {finite}")
assert below == [1.0]
assert finite == [np.inf]
PYTHON

"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check hypothesis==6.142.1 numpy==2.3.4
"$folder/venv/bin/python" "$folder/look.py"
