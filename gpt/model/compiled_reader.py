"""The forward pass of `gpt.model.GPT` for T new tokens of B sequences, in compiled functions.

A token of a small model takes hundreds of ops, and calling them from Python takes longer than their arithmetic. Here
one compiled call processes all blocks, for float32 and quantized weights on a CPU. It computes what `gpt/model/gpt.py`
computes with a cache, which is easier to read; `gpt/generation/reader.py` compares both. Importing this module needs
numba (the extra `fast`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.model.cache import KVCache
from gpt.model.gpt import GPT
from gpt.model.quantized import QuantizedEmbedding
from gpt.model.reader_plan import (
    ATTN,
    FC,
    K_NORM,
    KEYS,
    NORM_1,
    NORM_1_BIAS,
    NORM_2,
    NORM_2_BIAS,
    OUT,
    PLACES,
    PROJ,
    Q_NORM,
    RELU_SQUARED,
    SWIGLU,
    TANH_GELU,
    VALUES,
    WINDOW,
    Plan,
    address,
    is_float32,
    plan_for,
)
from tensorlite import compiled

Array = NDArray[Any]

LARGE = 1 << 20  # Number of weights from which several threads read them; fewer weights fit the caches.
FEW = 16  # tokens, up to which no product needs BLAS, and its threads need no setting
MANY = 8  # tokens, from which several threads read them


@compiled.njit(nogil=True, cache=True, error_model="numpy")
def read(
    pool: int, gemm: int, quantized: int, blocks: Array, head: Array, x: Array, sizes: Array, rms: bool, eps: float,
    cosines: int, sines: int, padding: Array, workspace: Array, packed: Array, logits: Array,
) -> None:  # fmt: skip
    """Compute a model: append keys and values to the cache, and write the logits (B, count, V) of the last tokens.

    x: the embeddings (B T, C), which are changed. blocks: (n_layer, BLOCK_LENGTH). head: the addresses of weight and
    bias of the final norm, then a matrix. sizes: H, K, D, I, the activation, the length of the cache, and T.
    padding: (B,). workspace: `workspace_size` numbers. packed: `packed_size` bytes. The caller has both, because numba
    frees an array of its own after the last line that names it, also where its address is in use.
    """
    H, K, D, I, activation, length, T = sizes
    R, C = x.shape
    wide, attended = 2 * I if activation == SWIGLU else I, max(C, H * D)
    at_x = np.int64(x.ctypes.data)
    at_y = np.int64(workspace.ctypes.data)
    at_z = at_y + 4 * R * attended
    at_heads = at_z + 4 * R * C
    at_inner = at_heads + 4 * R * (H + 2 * K) * D
    at_packed = np.int64(packed.ctypes.data)
    for b in blocks:
        compiled.norm_rows(pool, rms, b[NORM_1], b[NORM_1_BIAS], eps, at_x, R, C, at_y)
        compiled.linear_rows(pool, gemm, quantized, b[ATTN:PROJ], at_y, C, R, at_packed, at_heads)
        compiled.turn_and_cache(
            pool, at_heads, R, H, K, D, cosines, sines, b[Q_NORM], b[K_NORM], eps, b[KEYS], b[VALUES], b[PLACES],
            length, T, padding,
        )  # fmt: skip
        compiled.cached_attention(
            pool, gemm, at_heads, R, H, K, D, b[KEYS], b[VALUES], b[PLACES], length, T, b[WINDOW], padding, at_y,
        )  # fmt: skip
        compiled.linear_rows(pool, gemm, quantized, b[PROJ:FC], at_y, H * D, R, at_packed, at_z)
        compiled.add_rows(pool, at_x, at_z, R * C)

        compiled.norm_rows(pool, rms, b[NORM_2], b[NORM_2_BIAS], eps, at_x, R, C, at_y)
        compiled.linear_rows(pool, gemm, quantized, b[FC:OUT], at_y, C, R, at_packed, at_inner)
        if activation == SWIGLU:
            compiled.apply_swiglu(pool, at_inner, R, I)
        elif activation == RELU_SQUARED:
            compiled.apply_relu_squared(pool, at_inner, R * I)
        else:
            compiled.apply_gelu(pool, at_inner, R * I, activation == TANH_GELU)
        compiled.linear_rows(pool, gemm, quantized, b[OUT:], at_inner, wide, R, at_packed, at_z)
        compiled.add_rows(pool, at_x, at_z, R * C)

    B, count = logits.shape[0], logits.shape[1]
    compiled.last_rows(at_x, B, T, C, count, at_z)
    compiled.norm_rows(pool, rms, head[0], head[1], eps, at_z, B * count, C, at_y)
    compiled.linear_rows(
        pool, gemm, quantized, head[2:], at_y, C, B * count, at_packed, np.int64(logits.ctypes.data)
    )  # fmt: skip


def workspace_size(config: ModelConfig, R: int) -> int:
    """Return the float32 numbers that R tokens need between the layers of a block."""
    C, attended, I = config.n_embd, config.n_head * config.head_size, config.inner_size
    heads = attended + 2 * config.kv_heads * config.head_size
    wide = 2 * I if config.mlp == "swiglu" else I
    return R * (max(C, attended) + C + heads + wide)


def packed_size(config: ModelConfig, R: int) -> int:
    """Return the bytes that the activations of R tokens take in 8 bits."""
    return int(compiled.packed_bytes(max(config.n_embd, config.n_head * config.head_size, config.inner_size), R))


def holds(cache: KVCache, config: ModelConfig) -> bool:
    """Return whether a cache has the arrays that a model with this configuration writes to."""
    B, tensors, padding = cache.batch_size, (*cache.keys, *cache.values), cache.padding
    shape = (B, config.kv_heads, cache.keys[0].shape[2] if cache.keys else 0, config.head_size)
    return (
        len(cache.keys) == len(cache.values) == config.n_layer
        and cache.block_size <= config.block_size
        and all(tuple(tensor.shape) == shape and is_float32(tensor.array) for tensor in tensors)
        and len(cache.tokens) == (config.previous_tokens > 0)
        and (padding is None or (padding.shape == (B,) and bool((padding >= 0).all())))
    )


def run_without_blas(function: Any, *args: Any, threads: bool) -> None:
    """Call a function with a pool, and 0 for the address of BLAS's sgemm."""
    if threads:
        compiled.run(function, 0, *args)
    else:
        function(0, 0, *args)


class CompiledReader:
    """The forward pass of a model for tokens after those in a cache. `for_model` makes it."""

    @classmethod
    def for_model(cls, model: GPT, cache: KVCache) -> "CompiledReader | None":
        """Return a reader for this model and cache, or None if the functions here do not compute this model."""
        plan = plan_for(model)
        return None if plan is None or not holds(cache, model.config) else cls(model, plan, cache)

    def __init__(self, model: GPT, plan: Plan, cache: KVCache) -> None:
        self.model, self.plan, self.cache = model, plan, cache
        self.rms, self.eps = model.config.norm == "rms", model.config.norm_eps
        self.blocks, self.sizes = plan.blocks.copy(), np.concatenate([plan.sizes, np.zeros(2, np.int64)])
        self.padding = np.zeros(cache.batch_size, np.int64) if cache.padding is None else cache.padding
        self.tables: list[Array] = []  # that hold the rotary positions
        self.places, self.first_keys = -1, cache.keys[0]
        self.workspace = np.empty(0, np.float32)
        self.packed = np.empty(0, np.uint8)
        self.quantized = compiled.quantized_linear_pointer() if plan.is_quantized else 0

    def is_current(self) -> bool:
        """Return whether the weights of the model still have the arrays that this reader reads."""
        return self.plan.is_current()

    def is_valid(self) -> bool:
        """Return whether the model is still the one that this reader computes. It looks at all modules."""
        return plan_for(self.model) is self.plan

    def logits(self, ids: Array, count: int = 1) -> Array:
        """Read ids, (B, T); return the logits (B, count, V), float32, after each of the last ones.

        The keys and values of the T tokens are appended to the cache.
        Raises ValueError if they do not fit into the cache or are fewer than `count`, IndexError for a token outside
        the vocabulary.
        """
        config, cache = self.model.config, self.cache
        B, T = ids.shape
        if not 0 < count <= T:
            raise ValueError(f"GPT: expected logits after at least 1 and at most all of {T} tokens, got {count}")
        cache.check_capacity(B, T)
        if ids.size and not (0 <= ids.min() and ids.max() < config.vocab_size):
            token = next(token for token in ids.reshape(-1).tolist() if not 0 <= token < config.vocab_size)
            raise IndexError(f"GPT: token {token} is not in the vocabulary of {config.vocab_size}")
        if cache.length + T > self.places or cache.keys[0] is not self.first_keys:
            if cache.length + T > cache.keys[0].shape[2]:
                cache.reserve(max(cache.length + T, 2 * cache.keys[0].shape[2]))
            self._find_cache()
        x = self._embed(ids)
        self.sizes[5:] = cache.length, T
        cosines, sines = self._rotary(cache.length + T)
        if len(self.workspace) < (size := workspace_size(config, B * T)):
            self.workspace = np.empty(size, np.float32)
            if self.quantized:
                self.packed = np.empty(packed_size(config, B * T), np.uint8)
        logits = np.empty((B, count, config.vocab_size), np.float32)
        # Weights of a small model fit into the cache of a core, so that one thread reads a token faster.
        threads = self.plan.num_weights >= LARGE or B * T >= MANY
        run = compiled.run_with_blas if B * T > FEW else run_without_blas
        run(
            read, self.quantized, self.blocks, self.plan.head, x, self.sizes, self.rms, self.eps, cosines, sines,
            self.padding, self.workspace, self.packed, logits, threads=threads,
        )  # fmt: skip
        cache.length += T
        return logits

    def _find_cache(self) -> None:
        """Take the addresses of the cache, which is new or has grown. Raises ValueError if it became another one."""
        if not holds(self.cache, self.model.config):
            raise ValueError("GPT: expected a cache of this model, with float32 keys and values. Make a new KVCache")
        self.first_keys = self.cache.keys[0]
        self.places = places = self.first_keys.shape[2]
        for row, keys, values in zip(self.blocks, self.cache.keys, self.cache.values, strict=True):
            row[KEYS], row[VALUES], row[PLACES] = address(keys), address(values), places

    def _embed(self, ids: Array) -> Array:
        """Return the residual stream (R, C) before the first block."""
        model, cache, config = self.model, self.cache, self.model.config
        wte = model.wte
        flat = ids.reshape(-1)
        x = wte.matrix.dequantize(flat) if isinstance(wte, QuantizedEmbedding) else wte.weight.array[flat]
        if config.previous_tokens:
            tokens, T = model.with_earlier(tl.tensor(ids), cache).array, ids.shape[1]
            for i, table in enumerate(model.previous):
                stop = tokens.shape[1] - 1 - i
                x = x + table.weight.array[tokens[:, stop - T : stop].reshape(-1)]
        if config.position == "rope":
            return x
        T = ids.shape[1]
        places = np.arange(cache.length, cache.length + T) - self.padding[:, None]
        positions = np.maximum(places, 0).reshape(-1)
        if config.position == "learned":
            return x + model.wpe.weight.array[positions]
        scaled = x * np.float32(math.sqrt(config.n_embd))
        return scaled + model.sinusoids.array[positions].astype(np.float32)

    def _rotary(self, length: int) -> tuple[int, int]:
        """Return the addresses of the cosines and sines of the first positions, 0 without rotary ones."""
        rotary = self.model.h[0].attn.rotary
        if rotary is None:
            return 0, 0
        if not self.tables or len(self.tables[0]) < length:
            size = min(self.model.config.block_size, max(256, 1 << (length - 1).bit_length()))
            self.tables = [table.array for table in rotary(size, self.cache.keys[0])]
        return self.tables[0].ctypes.data, self.tables[1].ctypes.data
