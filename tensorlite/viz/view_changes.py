"""The value of a tensor after a view of it was changed in place.

The graph has an op ``with_view`` for such a change. It returns the tensor's own memory, which is written afterwards.
"""

from __future__ import annotations

from typing import Any

from ..autograd.views import replay_view
from ..backends.registry import Array

__all__ = ["changed_base"]


def changed_base(base: Array, part: Array, steps: Any) -> Array:
    """Return a copy of a raw array with ``part`` written to a view of it. steps: the view ops, as in ``view_info``."""
    changed = base.copy()
    replay_view(steps, changed)[...] = part
    return changed
