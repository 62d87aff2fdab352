#!/bin/sh
# np.partition takes ten times as long as np.sort where most values are equal.
#
# Expected: a partition does less than a full sort, so it takes at most its time. Few distinct values make it no slower.
# Found (NumPy 2.4.6 on x86 processors with AVX2 or AVX-512): for 49,152 float64 values, of which all except 40 are
# -inf, np.partition takes 13 to 25 times as long as for random values, and 16 to 50 times as long as np.sort of the
# same array. np.argpartition does the same. An array with all values equal is fast, and so is NumPy's code for
# processors without AVX2 (NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4"). The logits of a language model are such an array
# after a cut with top-k or a grammar, and the next cut partitions them again.
# gpt.generation.processors.largest sorts the tokens that are left, if they are few, and does not partition.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import time

import numpy as np


def milliseconds(call):
    times = []
    for _ in range(15):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


logits = np.random.default_rng(0).normal(size=49_152)
cut = np.full_like(logits, -np.inf)
cut[:40] = logits[:40]
simd = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
print("NumPy", np.__version__, "on a processor with", ", ".join(simd))
results = {}
for name, values in (("random", logits), ("40 of 49,152 finite", cut)):
    results[name] = milliseconds(lambda: np.partition(values, -40)), milliseconds(lambda: np.sort(values))
    print(f"{name:20} partition {results[name][0]:7.3f} ms    sort {results[name][1]:7.3f} ms")
random, equal = results.values()
assert random[0] < random[1]  # what one expects
assert equal[0] > 4 * equal[1]  # what happens
assert equal[0] > 4 * random[0]
END
