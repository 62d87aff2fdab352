"""Multi-head attention."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..autograd.autocast_mode import can_combine
from ..backends.registry import BACKENDS, DeviceLike
from ..dtypes import DTypeLike
from ..errors import DTypeError, ShapeError
from ..scalars import fraction_in, int_in, int_or_none_in
from ..tensors.creation import empty
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .checks import check_tensors
from .linear import Linear
from .module import Module
from .parameter import Parameter

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """A layer of ``num_heads`` attentions in parallel, each on its slice of ``embed_dim``, and a linear map.

    embed_dim: the width E of queries and results.
    num_heads: the number of heads; it divides embed_dim.
    dropout: the probability that an attention weight is dropped in training.
    bias: whether the projections have biases.
    kdim, vdim: the widths of keys and values, E if None.
    batch_first: whether inputs are (N, T, E) instead of (T, N, E). Without a batch they are (T, E) in both cases.
    device, dtype: those of the parameters; None is the default.

    The projections start from Xavier's uniform distribution, and the biases as zeros. Raises ValueError if num_heads
    does not divide embed_dim, or if dropout is not from 0 to 1.
    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        name = "MultiheadAttention"
        embed_dim, num_heads = int_in(name, "embed_dim", embed_dim), int_in(name, "num_heads", num_heads)
        kdim, vdim = int_or_none_in(name, "kdim", kdim), int_or_none_in(name, "vdim", vdim)
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: num_heads {num_heads} must divide embed_dim {embed_dim}")
        dropout = fraction_in(name, "dropout", dropout)
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.batch_first = dropout, batch_first

        def weight(rows: int, columns: int) -> Parameter:
            return Parameter(empty(rows, columns, device=device, dtype=dtype))

        same = self.kdim == self.vdim == embed_dim
        self.in_proj_weight = weight(3 * embed_dim, embed_dim) if same else None
        self.q_proj_weight = None if same else weight(embed_dim, embed_dim)
        self.k_proj_weight = None if same else weight(embed_dim, self.kdim)
        self.v_proj_weight = None if same else weight(embed_dim, self.vdim)
        self.in_proj_bias = Parameter(empty(3 * embed_dim, device=device, dtype=dtype)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: Xavier's for the projections of the inputs, zeros for the biases."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the result, in query's shape, and the attention weights or None.

        query (T, N, E), key (S, N, kdim), value (S, N, vdim); with ``batch_first`` (N, T, E), (N, S, kdim) and
            (N, S, vdim); without a batch (T, E), (S, kdim) and (S, vdim).
        key_padding_mask: (N, S). True *hides* a key, unlike in ``scaled_dot_product_attention``; numbers are added.
        need_weights: whether to return the attention weights. False is faster.
        attn_mask: (T, S) or (N * num_heads, T, S), of the same kinds as key_padding_mask.
        average_attn_weights: whether the weights are averaged over the heads, (N, T, S), or not, (N, num_heads, T, S).
        is_causal: whether query t sees only keys 0 to t.

        A query that sees no key gets the bias of ``out_proj``. Raises ShapeError for shapes that do not fit, DTypeError
        for a mask that is neither of booleans nor of the query's dtype.
        """
        batched = self._check(query, key, value)
        swap = batched and not self.batch_first
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        projected = self._project(query, key, value)
        q, k, v = (self._heads(x.transpose(0, 1) if swap else x) for x in projected)  # (N, H, T, D)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.dropout(self._weights(q, k, mask, is_causal), p)
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal)
        out = self.out_proj(out.transpose(1, 2).flatten(2))  # (N, T, E)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out.transpose(0, 1) if swap else out, weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Return whether there is a batch dimension. Raise ShapeError for shapes that do not fit."""
        check_tensors("MultiheadAttention", query=query, key=key, value=value)
        shapes = query.shape, key.shape, value.shape
        widths = [s[-1:] for s in shapes] == [(self.embed_dim,), (self.kdim,), (self.vdim,)]
        fits = widths and {len(s) for s in shapes} in ({2}, {3}) and key.shape[:-1] == value.shape[:-1]
        batch = 0 if self.batch_first else 1
        if not fits or (query.ndim == 3 and query.shape[batch] != key.shape[batch]):
            order = ("N, T", "N, S") if self.batch_first else ("T, N", "S, N")
            raise ShapeError(
                f"MultiheadAttention: expected query ({order[0]}, {self.embed_dim}), key ({order[1]}, {self.kdim}) and "
                f"value ({order[1]}, {self.vdim}), or these without N, got query {shapes[0]}, key {shapes[1]}, value "
                f"{shapes[2]}"
            )
        return query.ndim == 3

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Return the projected queries, keys and values, (..., E) each."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if weight is not None and query is key is value:  # self-attention: one product for all three
            return F.linear(query, weight, bias).chunk(3, -1)
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights: Any = separate if weight is None else weight.chunk(3)
        biases: Any = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))

    def _heads(self, x: Tensor) -> Tensor:
        """Split (N, T, E) into heads (N, H, T, D)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attn: Tensor | None) -> Tensor | None:
        """Return both masks as one, broadcastable to (N, H, T, S). True means that a key is seen."""
        (n, heads, t), s = q.shape[:3], k.shape[2]
        masks = []
        if padding is not None:
            if padding.shape != (n, s):
                raise ShapeError(f"MultiheadAttention: key_padding_mask must be (N, S) = {(n, s)}, got {padding.shape}")
            masks.append(("key_padding_mask", padding[:, None, None]))
        if attn is not None:
            if attn.shape not in ((t, s), (n * heads, t, s)):
                raise ShapeError(
                    f"MultiheadAttention: attn_mask must be (T, S) = {(t, s)} or (N * num_heads, T, S) = "
                    f"{(n * heads, t, s)}, got {attn.shape}"
                )
            masks.append(("attn_mask", attn if attn.ndim == 2 else attn.reshape(n, heads, t, s)))
        for name, mask in masks:
            if mask.dtype.kind != "b" and mask.dtype != q.dtype and not can_combine(mask, q):
                raise DTypeError(
                    f"MultiheadAttention: {name} must be bool (True hides a key) or {q.dtype}, got {mask.dtype}"
                )
        if all(mask.dtype.kind == "b" for _, mask in masks):
            seen = [~mask for _, mask in masks]
            return seen[0] & seen[1] if len(seen) == 2 else seen[0] if seen else None
        added = [ops.where(mask, -math.inf, 0.0).to(q.dtype) if mask.dtype.kind == "b" else mask for _, mask in masks]
        return added[0] + added[1] if len(added) == 2 else added[0]

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        """Return the attention weights (N, H, T, S); zeros for a query that sees no key."""
        scores = (q @ k.transpose(-1, -2)) * (1.0 / math.sqrt(self.head_dim))
        if is_causal:
            seen = BACKENDS[type(q.array)].tri(q.shape[-2], k.shape[-2], dtype=bool)
            scores = ops.where(seen, scores, -math.inf)
        if mask is not None:
            scores = ops.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
            blind = (scores == -math.inf).all(-1, True)
            return ops.where(blind, 0.0, F.softmax(ops.where(blind, 0.0, scores), -1))
        return F.softmax(scores, -1)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        sizes = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
        return f"{sizes}, dropout={self.dropout}, batch_first={self.batch_first}"
