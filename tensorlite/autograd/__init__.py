"""Reverse-mode automatic differentiation."""

from .anomaly_mode import detect_anomaly
from .engine import (
    Node,
    Op,
    OpFunction,
    Variable,
    backward,
    enable_grad,
    grad,
    is_grad_enabled,
    no_grad,
    op,
    set_grad_enabled,
    walk,
)

__all__ = [
    "Node", "Op", "OpFunction", "Variable", "backward", "detect_anomaly", "enable_grad", "grad", "is_grad_enabled",
    "no_grad", "op", "set_grad_enabled", "walk",
]  # fmt: skip
