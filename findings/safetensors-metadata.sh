#!/bin/sh
# safetensors writes other bytes each time for the same tensors and the same metadata.
#
# Expected: equal content gives an equal file, so that a checkpoint can be recognised by its hash, and a cache or a
# backup stores it once.
# Found (safetensors 0.8.0): with several entries of metadata, their order in the header changes from one call to the
# next, within one process. The tensors themselves are written in a fixed order.
# tensorlite puts checksums of the numbers into the metadata instead of comparing files.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'END'
import numpy as np
import safetensors
import safetensors.numpy

tensors, metadata = {"x": np.zeros(2, np.float32)}, {f"key{i}": str(i) for i in range(8)}
with_metadata = {safetensors.numpy.save(tensors, metadata) for _ in range(20)}
without = {safetensors.numpy.save(tensors) for _ in range(20)}
print("safetensors", safetensors.__version__)
print("different files of 20, with eight entries of metadata:", len(with_metadata))
print("different files of 20, without metadata:", len(without))
for data in list(with_metadata)[:2]:
    print(data[8:80].decode(), "...")
assert len(with_metadata) > 1
assert len(without) == 1
END
