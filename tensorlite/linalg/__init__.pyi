# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.

from collections.abc import Sequence
from typing import Literal

from ..dtypes import DTypeLike
from ..errors import LinAlgError as LinAlgError
from ..ops.arguments import ArrayOrNumber, Dim
from ..ops.factorizations import QR, SVD, Eigh
from ..ops.inverses import SlogDet
from ..tensors.tensor import Tensor

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "vecdot",
    "vector_norm",
]

def cholesky(A: Tensor, *, upper: bool = False) -> Tensor: ...
def cond(A: Tensor, p: float | str | None = None) -> Tensor: ...
def det(A: Tensor) -> Tensor: ...
def eigh(A: Tensor, UPLO: Literal["L", "U"] = "L") -> Eigh[Tensor]: ...
def eigvalsh(A: Tensor, UPLO: Literal["L", "U"] = "L") -> Tensor: ...
def inv(A: Tensor) -> Tensor: ...
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
