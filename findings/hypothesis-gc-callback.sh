#!/bin/sh
# After a test of hypothesis has run, every garbage collection of the process calls a Python function of hypothesis.
#
# Expected: a profile function (sys.setprofile) that watches a call of plain code sees the functions that this code
# calls, and nothing else. A library for tests leaves the code under test alone when no test of it runs.
# Found (hypothesis 6.170.17, CPython 3.11 and later): the first @given test adds a function to gc.callbacks, which
# stays there. It reads the clock at the begin and the end of each collection. So a profile function that watches any
# code that allocates sees calls of hypothesis, at places that depend on the collector.
# tl.compile watches a step to find code whose result may change, such as time.perf_counter(). It met this one in a step
# that called no clock. It now holds off collections while it records.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check hypothesis==6.170.17

cat > "$folder/look.py" <<'PYTHON'
import gc
import sys

import hypothesis
from hypothesis import given
from hypothesis import strategies as st


def allocate():
    return [[i] for i in range(10_000)]


def calls_of(f):
    """Return the files of the Python functions that run during a call."""
    files = set()
    sys.setprofile(lambda frame, event, argument: event == "call" and files.add(frame.f_code.co_filename))
    try:
        f()
    finally:
        sys.setprofile(None)
    return {file for file in files if "hypothesis" in file}


@given(st.integers())
def test(n):
    assert n == n


before, callbacks = calls_of(allocate), len(gc.callbacks)
test()
after = calls_of(allocate)
print(f"hypothesis {hypothesis.__version__}, Python {sys.version.split()[0]}")
print(f"    files of hypothesis that a plain function calls before a test: {len(before)}, after it: {len(after)}")
print(f"    gc.callbacks before: {callbacks}, after: {len(gc.callbacks)}")
assert not before and after and len(gc.callbacks) == callbacks + 1
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
