"""The blocks of a transformer: attention, the MLP, and what puts them together.

In the shape comments B is the batch, T the sequence, C the width n_embd. H is the number of query heads, K that of keys
and values, and D the width of a head. S counts the keys, which are those of the cached tokens or of another sequence.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Ainslie et al. 2023, "GQA: Training Generalized Multi-Query
Transformer Models from Multi-Head Checkpoints".
"""

import math
from collections.abc import Iterable
from typing import Literal

import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.model.cache import KVCache
from gpt.model.packed import PackedDocuments
from gpt.model.rotary import RotaryTable, rotate
from gpt.model.window import WindowMask, visible_keys
from tensorlite import Tensor, nn


class SelfAttention(nn.Module):
    """The layers of multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2).

    A subclass says what each position attends to. rotary: for rotary positions.
    """

    def __init__(self, config: ModelConfig, rotary: RotaryTable | None = None) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_size
        self.n_head, self.n_kv_head, self.head_size = config.n_head, config.kv_heads, D
        self.dropout = config.dropout if config.attention_dropout else 0.0  # of attention weights
        self.rotary = rotary
        outputs = (self.n_head + 2 * self.n_kv_head) * D  # queries, keys and values in one matmul
        self.c_attn = nn.Linear(C, outputs, bias=config.bias or config.qkv_bias)
        self.c_proj = nn.Linear(self.n_head * D, C, bias=config.bias)
        self.q_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.resid_dropout = nn.Dropout(config.dropout)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, D), and keys and values (B, K, T, D), for x (B, T, C)."""
        B, T, _ = x.shape
        H, K = self.n_head, self.n_kv_head
        heads = self.c_attn(x).view(B, T, H + 2 * K, self.head_size).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = heads.split([H, K, K], dim=1)
        return self.q_norm(q), self.k_norm(k), v


class CausalSelfAttention(SelfAttention):
    """Multi-head attention where position t attends to positions 0 to t (Vaswani et al. 2017, section 3.2).

    layer: the number of its block, which decides whether it has the sliding window. rotary: for rotary positions.
    seen: for the sliding window; None for a new one.
    """

    def __init__(
        self, config: ModelConfig, layer: int = 0, rotary: RotaryTable | None = None, seen: WindowMask | None = None
    ) -> None:
        super().__init__(config, rotary)
        self.window = config.sliding_window if layer >= config.full_layers else 0
        self.seen = seen or WindowMask(config.sliding_window, config.block_size)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> Tensor:
        q, k, v, mask = self.inputs_of_attention(x, cache, layer, documents)
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and k.shape[-2] == x.shape[1]
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal)
        return self.resid_dropout(self.c_proj(merge_heads(y, self.n_head)))

    def inputs_of_attention(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries (B, H, T, D), keys and values (B, H, S, D), and what each query sees, for x (B, T, C).

        Where H / K queries share a key, the shapes are those of `share_keys`. The mask is None if a query sees its own
        key and those before it.
        """
        q, k, v = self.split_heads(x)
        q, k, v = self.turn_and_cache(q, k, v, cache, layer, documents)
        T, S, padding = q.shape[2], k.shape[2], None if cache is None else cache.padding
        mask = None
        windowed = 0 < self.window < S
        if windowed and T == S and padding is None:
            mask = self.seen(T, x)
        elif windowed or padding is not None or 1 < T < S:
            mask = visible_keys(T, S, self.window, padding).to(x.device)  # is_causal alone does not say it.
        if documents is not None:
            mask = documents.mask(self.window)
        return share_keys(q, k, v, mask)

    def turn_and_cache(
        self, q: Tensor, k: Tensor, v: Tensor, cache: KVCache | None, layer: int, documents: PackedDocuments | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, and the keys and values of all positions. With rotary positions they are turned."""
        start = 0 if cache is None else cache.length
        stop = start + q.shape[2]
        if self.rotary is None:
            if cache is not None:
                k, v = cache.extend(layer, k, v)
            return q, k, v
        table = self.rotary(stop, q)
        if documents is not None:
            turns = table[0][documents.positions].unsqueeze(1), table[1][documents.positions].unsqueeze(1)
            return rotate(q, *turns), rotate(k, *turns), v
        late = self.rotary.turns_late  # Then the cache holds keys that are not turned.
        new, every = positions_of(table, start, stop, cache), positions_of(table, 0, stop, cache)
        q, k = rotate(q, *new), k if late else rotate(k, *new)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return q, rotate(k, *every) if late else k, v


class BidirectionalSelfAttention(SelfAttention):
    """Multi-head attention where each position attends to all positions (Vaswani et al. 2017, section 3.2)."""

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the output (B, T, C) for x (B, T, C).

        seen: booleans that broadcast to (B, 1, T, T), whether a query sees a key; None if each sees all.
        """
        q, k, v = self.split_heads(x)
        if self.rotary is not None:
            table = self.rotary(x.shape[1], q)
            q, k = rotate(q, *table), rotate(k, *table)
        q, k, v, seen = share_keys(q, k, v, seen)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, seen, dropout_p=dropout)
        return self.resid_dropout(self.c_proj(merge_heads(y, self.n_head)))


def share_keys(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return queries (B, H, T, D), keys, values and a mask in shapes where H / K queries share a key (B, K, S, D).

    With fewer keys than queries they are (B, K, H / K, T, D) and twice (B, K, 1, S, D).
    """
    B, H, T, D = q.shape
    K = k.shape[1]
    if K < H:
        q, k, v = q.reshape(B, K, H // K, T, D), k.unsqueeze(2), v.unsqueeze(2)
        mask = mask if mask is None or mask.ndim == 2 else mask.unsqueeze(2)
    return q, k, v, mask


def merge_heads(y: Tensor, H: int) -> Tensor:
    """Return the outputs of H heads side by side, (B, T, H D), for those of attention, (B, ..., T, D)."""
    B, (T, D) = y.shape[0], y.shape[-2:]
    y = y.reshape(B, H, T, D).transpose(1, 2)
    return y.reshape(B, T, H * D)


def positions_of(
    table: tuple[Tensor, Tensor], start: int, stop: int, cache: KVCache | None
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the places from `start` to `stop`: (T, D), or (B, 1, T, D) with padding."""
    if cache is None or cache.padding is None:
        return table[0][start:stop], table[1][start:stop]
    positions = cache.positions(start, stop).to(table[0].device)
    return table[0][positions].unsqueeze(1), table[1][positions].unsqueeze(1)


class MLP(nn.Module):
    """Two linear layers with a nonlinearity between them, where the width is I = 4C by default.

    gelu: GELU. relu2: ReLU squared (So et al. 2021, "Primer"). swiglu: the first layer has 2I outputs, gate and value,
    and silu(gate) * value goes on (Shazeer 2020, "GLU Variants Improve Transformer").
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, self.inner_size, self.kind = config.n_embd, config.inner_size, config.mlp
        self.c_fc = nn.Linear(C, self.inner_size * (2 if self.kind == "swiglu" else 1), bias=config.bias)
        self.c_proj = nn.Linear(self.inner_size, C, bias=config.bias)
        self.approximate: Literal["none", "tanh"] = "tanh" if config.gelu == "tanh" else "none"
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)  # (B, T, I), or (B, T, 2I)
        if self.kind == "swiglu":
            gate, value = x.split(self.inner_size, dim=-1)
            x = F.silu(gate) * value
        elif self.kind == "relu2":
            x = F.relu(x)
            x = x * x
        else:
            x = F.gelu(x, self.approximate)
        return self.dropout(self.c_proj(x))  # (B, T, C)


class Block(nn.Module):
    """A transformer block: attention mixes positions, the MLP transforms each; both add to the residual stream."""

    def __init__(
        self, config: ModelConfig, layer: int = 0, rotary: RotaryTable | None = None, seen: WindowMask | None = None
    ) -> None:
        super().__init__()
        self.ln_1 = build_norm(config)
        self.attn = CausalSelfAttention(config, layer, rotary, seen)
        self.ln_2 = build_norm(config)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer, documents)
        return x + self.mlp(self.ln_2(x))


def build_norm(config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """Return a norm of the residual stream."""
    if config.norm == "rms":
        return nn.RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, config.norm_eps, bias=config.bias)


def init_parameters(parameters: Iterable[tuple[str, nn.Parameter]], config: ModelConfig, projections: int) -> None:
    """Initialise named parameters as GPT-2 does: N(0, init_std^2), and zero for biases.

    projections: the number of layers that add to one residual stream. Their matrices are named c_proj, and get
        init_std / sqrt(projections), so that the variance of their sum does not grow with depth. With `zero_init`, they
        and a separate head, lm_head, get zeros.
    """
    std, zero = config.init_std, config.zero_init
    residual = 0.0 if zero else std / math.sqrt(projections)
    for name, parameter in parameters:
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim >= 2:
            head = 0.0 if zero and name == "lm_head.weight" else std
            nn.init.normal_(parameter, 0.0, residual if name.endswith("c_proj.weight") else head)
