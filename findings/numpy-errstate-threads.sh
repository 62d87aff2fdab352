#!/bin/sh
# A thread pool does not see the np.errstate of the code that uses it.
#
# Expected: inside `with np.errstate(all="ignore")` no computation warns, whoever carries it out.
# Found (NumPy 2.4.6, Python 3.11 to 3.13): the setting is a context variable. A thread that a pool starts has a
# context of its own, with NumPy's defaults, and warns. That turns into an error where warnings are errors, as in many
# test suites. np.seterr in the main program does not reach the threads either. (From Python 3.14 on, a free-threaded
# build lets new threads inherit the context. The script is for the usual build.)
# tensorlite enters np.errstate in the worker threads again (tensorlite/backends/cpu/thread_pool.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

zero = np.zeros(1)


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


def in_pool():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: zero / zero).result()


print("NumPy", np.__version__)
with np.errstate(all="ignore"):
    here, there = warned(lambda: zero / zero), warned(in_pool)
print("with errstate: here", here, " in a pool", there)
before = np.seterr(all="ignore")
here_too, there_too = warned(lambda: zero / zero), warned(in_pool)
np.seterr(**before)
print("with seterr:   here", here_too, " in a pool", there_too)
assert here == here_too == []
assert there == there_too == ["invalid value encountered in divide"]
END
