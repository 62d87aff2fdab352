"""Mixed precision: ``autocast`` chooses the dtype of each op, ``GradScaler`` keeps small gradients from vanishing.

    with tl.autocast("cpu", dtype=tl.bfloat16):
        logits, loss = model(x, y)
    loss.backward()

The names and arguments are those of ``torch.amp``.
"""

from ..missing_names import module_getattr as _module_getattr
from .autocast_context import autocast, get_autocast_dtype, is_autocast_available, is_autocast_enabled
from .grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "get_autocast_dtype", "is_autocast_available", "is_autocast_enabled"]

__getattr__ = _module_getattr(__name__, globals())
