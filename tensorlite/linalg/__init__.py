"""Linear algebra, with the names of ``torch.linalg``.

    tl.linalg.vector_norm(x, ord=1, dim=-1)

Every function is differentiable to any order.
"""

from ..ops.norms import vector_norm

__all__ = ["vector_norm"]
