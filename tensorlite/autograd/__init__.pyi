# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.

from collections.abc import Callable, Collection, Sequence
from typing import Any, Concatenate, Literal, overload

from ..dtypes import Policy
from ..tensors.tensor import Tensor
from .anomaly_mode import detect_anomaly as detect_anomaly
from .function import OpFunction as OpFunction
from .function import P
from .grad_mode import enable_grad as enable_grad
from .grad_mode import inference_mode as inference_mode
from .grad_mode import no_grad as no_grad
from .grad_mode import set_grad_enabled as set_grad_enabled
from .graph import Edge, Rule
from .graph import Node as Node
from .graph import Variable as Variable
from .op_definition import Op as Op

__all__ = [
    "Node",
    "Op",
    "OpFunction",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "op",
    "set_grad_enabled",
    "topological_order",
]

def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None: ...
@overload
def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: Literal[False] = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]: ...
@overload
def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    allow_unused: Literal[True],
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]: ...
def is_grad_enabled() -> bool: ...
def is_inference_mode_enabled() -> bool: ...
@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Rule | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[False] = False,
    view: bool = False,
    accepts_dtype: bool = False,
    widen: bool | str = False,
    autocast: str | None = None,
    bfloat16: bool | str = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, Tensor]]: ...
@overload
def op(
    *rules: Rule | None,
    backward: Callable[..., Any] | None = None,
    composite: Rule | None = None,
    dtypes: str | Policy | None = None,
    aux: Sequence[str] = (),
    multi_output: Literal[True],
    view: bool = False,
    accepts_dtype: bool = False,
    widen: bool | str = False,
    autocast: str | None = None,
    bfloat16: bool | str = False,
) -> Callable[[Callable[Concatenate[Any, P], Any]], OpFunction[P, tuple[Tensor, ...]]]: ...
def topological_order(roots: Collection[Edge], oldest: int = 0) -> list[Node]: ...
