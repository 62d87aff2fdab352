#!/bin/sh
# numba compiles a loop for Intel's AVX-512 processors with vectors of 256 bits, and for AMD's with 512.
#
# Expected: where a processor has AVX-512, numba's loops use its registers of 512 bits. The features that numba reports
# for the processor say AVX-512, and say the same for Intel's Sapphire Rapids and AMD's Zen 4.
# Found (numba 0.68.1, llvmlite 0.50.0, LLVM 22): for the name sapphirerapids the loop has only registers of 256 bits,
# for znver4 those of 512, with the same list of features. The preference belongs to LLVM's tuning of a processor's
# name. It is no feature that numba lists, so nothing that one can print in numba shows it. Asking for -prefer-256-bit
# brings the wide ones.
# tensorlite compiles its kernels with the attribute prefer-vector-width=512: on such a processor a softmax of rows took
# 47 instead of 80 us, and GELU 67 instead of 101.
# Nothing here runs the loops, so any x86-64 processor shows it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numba==0.68.1 numpy==2.3.4

cat > "$folder/look.py" <<'PYTHON'
import re

import numba


def scale(x):
    for i in range(x.size):
        x[i] = x[i] * x[i] + 1.0


f = numba.njit("void(float32[::1])")(scale)
text = f.inspect_asm(f.signatures[0])
print(len(re.findall("%zmm", text)), len(re.findall("%ymm", text)))
PYTHON

features=+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd,+sse2,+sse4.2

# Print how often registers of 512 and of 256 bits appear: registers NAME FEATURES.
registers() {
    NUMBA_CPU_NAME=$1 NUMBA_CPU_FEATURES=$2 "$folder/venv/bin/python" "$folder/look.py"
}

intel=$(registers sapphirerapids "$features")
amd=$(registers znver4 "$features")
asked=$(registers sapphirerapids "$features,-prefer-256-bit")
"$folder/venv/bin/python" -c 'import llvmlite, llvmlite.binding as b, numba
print(f"numba {numba.__version__}, llvmlite {llvmlite.__version__}, LLVM {b.llvm_version_info}")'
echo "    uses of registers of 512 and of 256 bits in one loop"
echo "    sapphirerapids: $intel; znver4: $amd; sapphirerapids with -prefer-256-bit: $asked"
[ "${intel% *}" = 0 ] && [ "${intel#* }" -gt 0 ] || exit 1
[ "${amd% *}" -gt 0 ] && [ "${asked% *}" -gt 0 ] || exit 1
