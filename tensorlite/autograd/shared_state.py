"""The lock for state that several threads may change: gradients of leaves, lists of hooks, version counters."""

from __future__ import annotations

import threading

__all__ = ["shared_state"]

shared_state = threading.RLock()
"""The lock. It can be taken again by the thread that holds it, because a finalizer may run inside."""
