"""The ops that ``tensorlite.nn.functional`` exports unchanged and ``tensorlite`` does not."""

from .nn import elu, gelu, one_hot, silu, softplus

__all__ = ["elu", "gelu", "one_hot", "silu", "softplus"]
