# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.

from ..dtypes import DTypeLike
from ..ops.arguments import Dim
from ..tensors.tensor import Tensor

__all__ = [
    "vector_norm",
]

def vector_norm(
    input: Tensor,
    ord: float = 2,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Tensor: ...
