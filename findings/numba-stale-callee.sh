#!/bin/sh
# numba's cache keeps the old code of a function that was changed in another file.
#
# Expected: with `cache=True`, a change in any source that a compiled function contains leads to a new compilation.
# Found (numba 0.68.1): the cache compares the time stamp of the file in which the function stands, and of no other. If
# it calls a compiled function of another file, and only that file changes, the next process runs the old code inside
# the caller and the new code everywhere else. Two calls of one function in one process then disagree.
# tensorlite's own njit puts the stamps of all its kernel files into the cache's key
# (tensorlite/backends/cpu/compiled/support.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 numba==0.68.1
cd "$folder"
cat >inner.py <<'END'
from numba import njit

@njit(cache=True)
def inner(x):
    return x + 1
END
cat >outer.py <<'END'
from numba import njit
from inner import inner

@njit(cache=True)
def outer(x):
    return inner(x)
END
cat >test.py <<'END'
import numba, outer
print("numba", numba.__version__, "inner(1) =", outer.inner(1), "outer(1) =", outer.outer(1))
END
first=$(venv/bin/python test.py)
echo "$first"
sleep 2  # so that the time stamp differs on any file system
sed -i.old 's/x + 1/x + 100/' inner.py
second=$(venv/bin/python test.py)
echo "$second"
[ "$first" = "numba 0.68.1 inner(1) = 2 outer(1) = 2" ]
[ "$second" = "numba 0.68.1 inner(1) = 101 outer(1) = 2" ]
