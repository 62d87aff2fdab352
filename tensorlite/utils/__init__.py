"""Tools that PyTorch's users look for in ``torch.utils``."""

from . import checkpoint, data

__all__ = ["checkpoint", "data"]
