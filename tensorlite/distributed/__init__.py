"""Training on several processes: collectives, and gradients that are averaged over the processes.

    mpiexec -n 4 python train.py

    import tensorlite.distributed as dist

    group = dist.init()                  # of size 1 where nothing started several processes
    model = dist.DataParallel(model)     # gradients are averaged while the backward pass goes on
    total = dist.all_reduce(x)           # the sum of the tensors of all processes

``communicator`` runs the collectives, on the engine ``mpi`` or ``threads``. ``reduction`` adds up, ``group`` and
``state`` are what users call.
"""

from .communicator import DistributedError
from .data_parallel import DataParallel, average_gradients
from .group import Group
from .state import all_gather, all_reduce, barrier, broadcast, init, rank, reduce_scatter, run_ranks, size
from .zero_redundancy import ZeroRedundancyOptimizer

__all__ = [
    "DataParallel", "DistributedError", "Group", "ZeroRedundancyOptimizer", "all_gather", "all_reduce",
    "average_gradients", "barrier", "broadcast", "init", "rank", "reduce_scatter", "run_ranks", "size",
]  # fmt: skip
