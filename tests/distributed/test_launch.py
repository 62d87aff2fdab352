"""Test what is read from the environment of a launcher, and how ranks share the cores of a machine."""

import os

import numpy as np
import pytest

from tensorlite.distributed import mpi
from tensorlite.distributed.mpi import launched_size, other_launcher

# Of Slurm 23 to 25, with the variables that matter: in the shell of sbatch, and in the one of salloc or `srun --pty`.
BATCH = {"SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_TASKS_PER_NODE": "2(x2)"}
SHELL = {**BATCH, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}
PMIX = {"PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.7.0", "SLURM_MPI_TYPE": "pmix"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, 3),  # mpiexec of MPICH and of Intel MPI
        ({"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "1"}, 3),  # mpiexec of Open MPI
        ({"PMIX_RANK": "1"}, 0),  # prterun
        (BATCH, 1),
        (SHELL, 1),
        (SHELL | PMIX, 1),
        (STEP | PMIX, 4),  # srun --mpi=pmix
        (STEP | {"PMI_RANK": "0", "PMI_SIZE": "4"}, 4),  # srun --mpi=pmi2
        (STEP, 4),  # srun --mpi=none
        # Where mpiexec starts its helpers by srun, one on each of two machines, their processes have the size of both.
        (BATCH | {"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "4"}, 4),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, 4),
        ({"PMI_SIZE": "many"}, 1),
        ({"PMI_SIZE": "0"}, 1),
    ],
)
def test_the_size_that_a_launcher_gives(environment, size):
    assert launched_size(environment) == size


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PMI_SIZE": "4"}, "Run the mpiexec of that library"),
        (BATCH | {"SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "4"}, "Run the mpiexec of that library"),
        (STEP, "srun has not connected the tasks of this step by a way that the MPI library knows (Open MPI v5)"),
        (STEP | {"PMI_SIZE": "4"}, "--mpi=pmix for Open MPI"),
    ],
)
def test_what_to_do_where_launcher_and_library_differ(environment, words):
    assert words in other_launcher(4, "Open MPI v5", environment)


class Communicator:
    """What stands in for MPI. machines: the name of each rank's machine, and the cores that it may use."""

    BYTE = 0

    def __init__(self, machines: list[tuple[str, list[int]]]) -> None:
        self.machines = machines

    def Get_processor_name(self) -> str:
        return self.machines[0][0]

    def Allgather(self, sent: list, received: list) -> None:
        rows = received[0].reshape(len(self.machines), -1)
        rows[...] = 0
        for row, (name, cores) in zip(rows, self.machines, strict=True):
            row[: len(name)] = list(name.encode())
            row[[mpi.MAX_NAME + core for core in cores]] = 1
        np.testing.assert_array_equal(rows[0], sent[0])


@pytest.mark.parametrize(
    ("cores", "quota", "share"),
    [
        ([range(8)] * 4, None, 2.0),  # mpiexec of MPICH binds no rank
        ([[0, 1], [2, 3], [4, 5], [6, 7]], None, 2.0),  # srun --cpus-per-task=2
        ([[0], [1]], None, 1.0),  # mpiexec of Open MPI
        ([range(8), range(4)], None, 6.0),
        ([range(64)] * 4, 6.0, 1.5),  # in a container
        ([[0, 1], [2, 3]], 16.0, 2.0),
    ],
)
def test_ranks_share_the_cores_that_both_may_use(cores, quota, share, monkeypatch):
    # Another machine, whose ranks and cores do not count.
    machines = [("a", list(each)) for each in cores] + [("b", [0, 1])] * 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores[0]), raising=False)
    monkeypatch.setattr(mpi, "cpu_quota", lambda: quota)
    engine = mpi.MpiEngine.__new__(mpi.MpiEngine)
    engine.comm = engine.mpi = Communicator(machines)
    engine.size = len(machines)
    assert engine.core_share() == pytest.approx(share)
