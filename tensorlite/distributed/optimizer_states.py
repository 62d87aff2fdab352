"""The states of an optimizer's parameters, from the ranks that keep them to one rank."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..autograd.graph import wrap
from ..dtypes import as_dtype
from ..tensors.tensor import Tensor
from .group import Group

__all__ = ["collect_states"]


def collect_states(group: Group, own: Mapping[int, Mapping[str, Any]], to: int) -> dict[int, dict[str, Any]] | None:
    """Return the states of all ranks on the rank ``to``, with their Tensors in the memory of the host. Else None.

    own: the state of each parameter of this rank, by its number: Tensors, and values that JSON can hold.

    One Tensor is sent at a time, so the other ranks need memory for one only. Raises TypeError for other values.
    """
    layout = {k: {name: describe(k, name, value) for name, value in state.items()} for k, state in own.items()}
    found: dict[int, dict[str, Any]] = {}
    for source, text in enumerate(group.gather_bytes(json.dumps(layout).encode())):
        for key, entries in json.loads(text).items():
            k = int(key)
            found[k] = {}
            for name, (value, dtype, shape) in entries.items():
                if dtype is not None:
                    mine = group.rank == source
                    sent = own[k][name].detach().cpu().array if mine else np.empty(shape, as_dtype(dtype))
                    received = group.run_broadcast(sent, source)
                    value = wrap(received) if group.rank == to else None
                found[k][name] = value
    return {k: found[k] for k in sorted(found)} if group.rank == to else None


def describe(k: int, name: str, value: Any) -> tuple[Any, str | None, tuple[int, ...]]:
    """Return a value, or the dtype and the shape of a Tensor. Raises TypeError for what JSON cannot hold."""
    if isinstance(value, Tensor):
        return None, str(value.dtype), tuple(value.shape)
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise TypeError(
            f"consolidate_state_dict: expected Tensors and numbers in the state of parameter {k}, got "
            f"{type(value).__name__} as {name!r}"
        )
    return value, None, ()
