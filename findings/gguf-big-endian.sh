#!/bin/sh
# The package gguf writes and reads files of the other order of bytes, and its dequantize makes wrong numbers of them.
#
# Expected: GGUFReader finds out the order of the bytes of a file, and gives arrays with a dtype of that order. So
# gguf.quants.dequantize(tensor.data, tensor.tensor_type), which is the way to the numbers of any tensor, gives the
# numbers that were written, for float32 as for float16.
# Found (gguf 0.19.0, NumPy 2.4.6): for F32 and F16 it calls array.view(float32) or view(float16), which takes the bytes
# in the order of the machine, whatever the dtype of the array says. 1.0 becomes 4.6e-41, with no error and no warning.
# tensor.data itself has the right numbers. Files for s390x have this order; convert_hf_to_gguf.py --bigendian writes
# them.
# gpt.checkpoint.gguf_file converts the order of such numbers first, and refuses quantized tensors of such a file.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import sys
from importlib.metadata import version

import gguf
import numpy as np

other = gguf.GGUFEndian.BIG if sys.byteorder == "little" else gguf.GGUFEndian.LITTLE
same = gguf.GGUFEndian.LITTLE if sys.byteorder == "little" else gguf.GGUFEndian.BIG
values = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
print("gguf", version("gguf"), "NumPy", np.__version__, "on a", sys.byteorder, "endian machine")
agreed = []
for name, order in (("own order", same), ("other order", other)):
    writer = gguf.GGUFWriter("model.gguf", "llama", endianess=order)
    writer.add_tensor("single", values)
    writer.add_tensor("half", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for tensor in gguf.GGUFReader("model.gguf").tensors:
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        print(f"{name:12} {tensor.tensor_type.name:4} data {tensor.data[0].tolist()}  dequantize {found[0].tolist()}")
        agreed += [bool((tensor.data == values).all()), bool((found == values).all())]
assert agreed == [True, True] * 2 + [True, False] * 2  # Expected: True everywhere. The file has two tensors.
END
