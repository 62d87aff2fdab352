#!/bin/sh
# Importing threadpoolctl sets an environment variable that hides a diagnosis of Intel's OpenMP.
#
# Expected: importing a library that reports on thread pools changes nothing.
# Found (threadpoolctl 3.8.0): the import sets KMP_DUPLICATE_LIB_OK=True if it is not set. Every process that is
# started afterwards inherits it. There, Intel's OpenMP continues where it would otherwise stop and report that two
# copies of it are loaded.
# The header of this project's benchmarks is written from the variables as they were before the import
# (benchmarks/environment.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check threadpoolctl==3.8.0
cd "$folder"
venv/bin/python - <<'END'
import os

os.environ.pop("KMP_DUPLICATE_LIB_OK", None)
before = dict(os.environ)
import threadpoolctl

changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
print("threadpoolctl", threadpoolctl.__version__, "sets", changed)
assert changed == {"KMP_DUPLICATE_LIB_OK": "True"}
END
