# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.

from collections.abc import Sequence
from typing import Literal

from ..dtypes import DTypeLike
from ..errors import LinAlgError as LinAlgError
from ..ops.arguments import ArrayOrNumber, Dim
from ..ops.factorizations import QR, SVD, Eigh
from ..ops.inverses import SlogDet
from ..ops.linear_systems import LeastSquares
from ..tensors.tensor import Tensor

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "cross",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "vecdot",
    "vector_norm",
]

def cholesky(A: Tensor, *, upper: bool = False) -> Tensor: ...
def cond(A: Tensor, p: float | str | None = None) -> Tensor: ...
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor: ...
def det(A: Tensor) -> Tensor: ...
def eigh(A: Tensor, UPLO: Literal["L", "U"] = "L") -> Eigh[Tensor]: ...
def eigvalsh(A: Tensor, UPLO: Literal["L", "U"] = "L") -> Tensor: ...
def inv(A: Tensor) -> Tensor: ...
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares[Tensor]: ...
def matmul(input: Tensor, other: Tensor) -> Tensor: ...
def matrix_exp(input: Tensor) -> Tensor: ...
def matrix_norm(
    A: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Tensor: ...
def matrix_power(A: Tensor, n: int) -> Tensor: ...
def matrix_rank(
    A: Tensor,
    tol: Tensor | ArrayOrNumber | None = None,
    hermitian: bool = False,
    *,
    atol: Tensor | ArrayOrNumber | None = None,
    rtol: Tensor | ArrayOrNumber | None = None,
) -> Tensor: ...
def multi_dot(tensors: Sequence[Tensor]) -> Tensor: ...
def norm(
    A: Tensor,
    ord: float | str | None = None,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Tensor: ...
def pinv(
    A: Tensor,
    rcond: Tensor | ArrayOrNumber | None = None,
    hermitian: bool = False,
    *,
    atol: Tensor | ArrayOrNumber | None = None,
    rtol: Tensor | ArrayOrNumber | None = None,
) -> Tensor: ...
def qr(A: Tensor, mode: Literal["reduced", "complete", "r"] = "reduced") -> QR[Tensor]: ...
def slogdet(A: Tensor) -> SlogDet[Tensor]: ...
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor: ...
def solve_triangular(
    A: Tensor,
    B: Tensor,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> Tensor: ...
def svd(A: Tensor, full_matrices: bool = True) -> SVD[Tensor]: ...
def svdvals(A: Tensor) -> Tensor: ...
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor: ...
def vector_norm(
    input: Tensor,
    ord: float = 2,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Tensor: ...
