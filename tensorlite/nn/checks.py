"""Argument checks of functions and layers.

Every error starts with ``name``, the name of the function or layer that the user called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.autocast_mode import can_combine
from ..autograd.op_hooks import run_op
from ..backends.registry import describe_array
from ..dtypes import is_floating
from ..errors import DeviceError, DTypeError, ShapeError
from ..ops.arguments import outlier
from ..scalars import fraction_in, ints_in
from ..tensors.tensor import Tensor

__all__ = ["check_attention", "check_class_targets", "check_class_weight", "check_floating", "check_linear",
           "check_normalized_shape", "check_reduction", "check_same_shape", "check_tensors",
           "check_tensors_or_none", "format_tensors"]  # fmt: skip


def format_tensors(*tensors: Any) -> str:
    """Return the dtypes and shapes of tensors for an error message: ``float32(2, 3), int64(2,)``. None is left out."""
    return ", ".join(describe_array(getattr(t, "array", t)) for t in tensors if t is not None)


def _type_name(value: Any) -> str:
    """Return the name of the type of a value, with its module: ``torch.Tensor``, ``numpy.ndarray``, ``list``."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def check_tensors(name: str, **tensors: Any) -> None:
    """Raise TypeError unless all arguments are Tensors, DeviceError unless they are on one device."""
    kind = None
    mixed = False
    for what, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: {what} must be a Tensor, got {_type_name(value)}. Make one with tl.tensor().")
        mixed = mixed or (kind is not None and type(value.array) is not kind)
        kind = type(value.array)
    if mixed:
        given = format_tensors(*tensors.values())
        raise DeviceError(f"{name}({given}): tensors on different devices. Move them with .to(device).")


def check_tensors_or_none(name: str, **tensors: Any) -> None:
    """Do :func:`check_tensors` for the arguments that are not None."""
    check_tensors(name, **{what: value for what, value in tensors.items() if value is not None})


def check_floating(name: str, *tensors: Tensor | None) -> None:
    """Raise DTypeError unless all tensors that are not None have one dtype, and it is a floating point one.

    Inside ``autocast`` they may have several, because the ops convert them.
    """
    dtypes = {t.dtype for t in tensors if t is not None}
    if (len(dtypes) > 1 or not is_floating(next(iter(dtypes)))) and not can_combine(*tensors):
        raise DTypeError(
            f"{name}({format_tensors(*tensors)}): expected floating point tensors of one dtype. Convert with "
            f".to(dtype)."
        )


def check_reduction(name: str, reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def check_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise TypeError, DeviceError or ShapeError for arguments that ``linear`` cannot take."""
    if bias is None:
        check_tensors("linear", input=input, weight=weight)
    else:
        check_tensors("linear", input=input, weight=weight, bias=bias)
    if (
        not input.shape
        or len(weight.shape) != 2
        or input.shape[-1] != weight.shape[1]
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        shapes = "expected shapes (..., in), (out, in) and, for a bias, (out,)"
        if input.shape and len(weight.shape) == 2 and input.shape[-1] != weight.shape[1]:
            shapes = f"expected an input (..., {weight.shape[1]}) for this weight, got (..., {input.shape[-1]})"
        raise ShapeError(f"linear({format_tensors(input, weight, bias)}): {shapes}")


def check_normalized_shape(
    name: str, input: Tensor, normalized_shape: int | Sequence[int], *affine: Tensor | None
) -> tuple[int, ...]:
    """Return ``normalized_shape`` as a tuple. ``affine`` is the weight, and the bias where there is one.

    Raises ShapeError unless the last dimensions of the input, the weight and the bias have that shape. Raises
    TypeError unless all are Tensors, and DTypeError unless all have one floating point dtype.
    """
    check_tensors(name, input=input)
    for a in affine:
        if a is not None:
            check_tensors(name, **{"weight or bias": a})
    shape = ints_in(name, "normalized_shape", normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name}({format_tensors(input)}): the last dimensions must be normalized_shape {shape}")
    if any(a is not None and a.shape != shape for a in affine):
        raise ShapeError(
            f"{name}({format_tensors(input, *affine)}): weight and bias must have normalized_shape {shape}"
        )
    check_floating(name, input, *affine)
    return shape


def check_same_shape(name: str, input: Tensor, target: Tensor, reduction: str) -> None:
    """Check the arguments of an elementwise loss. Raises ShapeError unless input and target have the same shape."""
    check_reduction(name, reduction)
    check_tensors(name, input=input, target=target)
    if input.shape != target.shape:  # (N, 1) and (N,) would broadcast to (N, N), which is probably a mistake
        raise ShapeError(f"{name}({format_tensors(input, target)}): input and target must have the same shape")


def check_class_targets(name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> int:
    """Return the number of classes C, for input (C,), (N, C) or (N, C, d1, ...) and class indices without C.

    Raises TypeError, ShapeError, DTypeError, and IndexError for a class index out of range (on the CPU only).
    """
    if weight is not None:
        check_tensors(name, weight=weight)
    if not input.shape or target.shape != input.shape[:1] * (input.ndim > 1) + input.shape[2:]:
        raise ShapeError(
            f"{name}({format_tensors(input, target)}): expected input (C,), (N, C) or (N, C, d1, ...), and class "
            f"indices of the same shape without C"
        )
    if target.dtype.kind not in "iu":
        raise DTypeError(
            f"{name}({format_tensors(input, target)}): class indices must be integers. Convert with .long()."
        )
    classes = input.shape[min(1, input.ndim - 1)]
    check_floating(name, input, weight)
    check_class_weight(name, input, target, weight, classes)
    run_op(_check_class_indices, name, target.array, classes, ignore_index)
    return classes


def check_class_weight(name: str, input: Tensor, target: Tensor, weight: Tensor | None, classes: int) -> None:
    """Raise ShapeError unless ``weight`` is None or has one entry for each class."""
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(
            f"{name}({format_tensors(input, target, weight)}): weight must have one entry for each class, ({classes},)"
        )


def _check_class_indices(name: str, target: Any, classes: int, ignore_index: int) -> None:
    """Raise IndexError for a class index out of range, on the CPU only: on a GPU the check would force a sync."""
    if outlier(target, classes):
        wrong = target[(target != ignore_index) & ((target < 0) | (target >= classes))]
        if wrong.size:
            raise IndexError(
                f"{name}: target {wrong[0]} is out of range: expected class indices from 0 to {classes - 1}, or "
                f"ignore_index ({ignore_index})"
            )


def check_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float
) -> tuple[tuple[int, ...], float]:
    """Return the shape (..., T, S) of the weights of ``scaled_dot_product_attention``, and ``dropout_p`` as a number.

    Raises TypeError, DeviceError, ShapeError, DTypeError, and ValueError for a bad ``dropout_p``.
    """
    name = "scaled_dot_product_attention"
    check_tensors(name, query=query, key=key, value=value)
    check_tensors_or_none(name, attn_mask=attn_mask)
    dropout_p = fraction_in(name, "dropout_p", dropout_p)
    q, k, v = query.shape, key.shape, value.shape
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeError(
            f"{name}({format_tensors(query, key, value)}): expected query (..., T, D), key (..., S, D) and value "
            f"(..., S, E)"
        )
    check_floating(name, query, key, value)
    try:
        leading = q[:-2] if q[:-2] == k[:-2] == v[:-2] else np.broadcast_shapes(q[:-2], k[:-2], v[:-2])
        weights = (*leading, q[-2], k[-2])
        if attn_mask is not None and np.broadcast_shapes(weights, attn_mask.shape) != weights:
            raise ValueError
    except ValueError:
        raise ShapeError(
            f"{name}({format_tensors(query, key, value, attn_mask)}): the leading dimensions must broadcast, and an "
            f"attn_mask to (..., {q[-2]}, {k[-2]})"
        ) from None
    if (
        attn_mask is not None and attn_mask.dtype != query.dtype and attn_mask.dtype.kind != "b"
        and not can_combine(query, attn_mask)
    ):  # fmt: skip
        raise DTypeError(
            f"{name}({format_tensors(query, attn_mask)}): attn_mask must hold booleans (True means seen), or numbers "
            f"of the query's dtype"
        )
    return weights, dropout_p
