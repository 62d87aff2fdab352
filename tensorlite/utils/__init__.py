"""Tools that PyTorch's users look for in ``torch.utils``."""

from . import checkpoint

__all__ = ["checkpoint"]
