"""Reverse-mode automatic differentiation."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from ..missing_names import module_getattr as _module_getattr
from .anomaly_mode import detect_anomaly
from .function import OpFunction, op
from .grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .gradients import backward, grad
from .graph import Node, Variable, topological_order
from .op_definition import Op

__all__ = [
    "Node", "Op", "OpFunction", "Variable", "backward", "detect_anomaly", "enable_grad", "grad", "inference_mode",
    "is_grad_enabled", "is_inference_mode_enabled", "no_grad", "op", "set_grad_enabled", "topological_order",
]  # fmt: skip

if not _TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = _module_getattr(__name__, globals())
