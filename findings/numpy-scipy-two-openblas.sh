#!/bin/sh
# NumPy and SciPy bring an OpenBLAS each: two versions, two sizes of integers, and threads of their own.
#
# Expected: in one process there is one OpenBLAS, so setting its threads holds for both.
# Found (NumPy 2.4.6, SciPy 1.17.1, both as wheels): two libraries of different versions are loaded. They share neither
# threads nor settings: limiting one leaves the other as it was. NumPy's takes sizes as 64-bit integers, SciPy's as
# 32-bit ones, so a function pointer of one must not be called with the arguments of the other.
# tensorlite finds NumPy's own library by the file that NumPy is linked with (tensorlite/backends/cpu/blas.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 threadpoolctl==3.8.0
cd "$folder"
venv/bin/python - <<'END'
import ctypes

import numpy as np
import scipy
import scipy.linalg
from threadpoolctl import ThreadpoolController

libraries = {
    "SciPy" if "scipy.libs" in library.filepath else "NumPy": library
    for library in ThreadpoolController().lib_controllers
    if library.user_api == "blas"
}
print("NumPy", np.__version__, "SciPy", scipy.__version__)
for name, library in libraries.items():
    print(f"{name}: OpenBLAS {library.version}, kernels {library.architecture}, {library.num_threads} threads")
assert sorted(libraries) == ["NumPy", "SciPy"]
assert libraries["NumPy"].version != libraries["SciPy"].version
assert libraries["NumPy"].architecture == libraries["SciPy"].architecture

for library in libraries.values():
    library.set_num_threads(1)
libraries["SciPy"].set_num_threads(2)
threads = {name: library.get_num_threads() for name, library in libraries.items()}
print("after SciPy's was set to 2:", threads)
assert threads == {"NumPy": 1, "SciPy": 2}

configurations = {}
for name, function in ("NumPy", "scipy_openblas_get_config64_"), ("SciPy", "scipy_openblas_get_config"):
    get_config = getattr(ctypes.CDLL(libraries[name].filepath), function)
    get_config.restype = ctypes.c_char_p
    configurations[name] = get_config().decode()
    print(f"{name}: {configurations[name]}")
assert "USE64BITINT" in configurations["NumPy"]
assert "USE64BITINT" not in configurations["SciPy"]
END
