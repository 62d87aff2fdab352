"""Linear algebra, with the names of ``torch.linalg``.

    tl.linalg.solve(A, b)
    tl.linalg.vector_norm(x, ord=1, dim=-1)

Leading dimensions of matrices are a batch. Every function is differentiable to any order. LinAlgError, an error for a
matrix that has no inverse or factorization, is raised on the CPU; on a GPU the result is then not finite.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ..errors import LinAlgError
from ..missing_names import module_getattr as _module_getattr
from ..ops.factorizations import cholesky, eigh, eigvalsh, qr, svd, svdvals
from ..ops.inverses import det, inv, pinv, slogdet, solve
from ..ops.linalg import matmul
from ..ops.linear_systems import lstsq, matrix_rank, solve_triangular
from ..ops.matrix_functions import cross, matrix_exp, matrix_power, multi_dot, vecdot
from ..ops.matrix_norms import cond, norm
from ..ops.norms import matrix_norm, vector_norm

__all__ = [
    "LinAlgError",
    "cholesky", "cond", "cross", "det", "eigh", "eigvalsh", "inv", "lstsq", "matmul", "matrix_exp", "matrix_norm",
    "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd",
    "svdvals", "vecdot", "vector_norm",
]  # fmt: skip

if not _TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = _module_getattr(__name__, globals())
