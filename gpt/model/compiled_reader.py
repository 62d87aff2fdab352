"""The forward pass of `gpt.model.GPT` for T new tokens of B sequences, in compiled functions.

A token of a small model takes hundreds of ops, and calling them from Python takes longer than their arithmetic. Here
one compiled call processes all blocks, for float32 and quantized weights on a CPU. It computes what `gpt/model/gpt.py`
computes with a cache, which is easier to read; `gpt/generation/reader.py` compares both. Importing this module needs
numba (the extra `fast`).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.config import ModelConfig
from gpt.model.cache import KVCache
from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention
from gpt.model.quantized import QuantizedEmbedding, QuantizedLinear, is_quantized
from tensorlite import Tensor, compiled, nn
from tensorlite.quantized import QuantizedMatrix

Array = NDArray[Any]

# The types of the modules that the functions here compute, by name.
BLOCK_MODULES: dict[str, tuple[type, ...]] = {
    "": (Block,), "ln_1": (nn.LayerNorm, nn.RMSNorm), "ln_2": (nn.LayerNorm, nn.RMSNorm),
    "attn": (CausalSelfAttention,), "attn.c_attn": (nn.Linear, QuantizedLinear),
    "attn.c_proj": (nn.Linear, QuantizedLinear), "attn.q_norm": (nn.Identity, nn.RMSNorm),
    "attn.k_norm": (nn.Identity, nn.RMSNorm), "attn.resid_dropout": (nn.Dropout,), "mlp": (MLP,),
    "mlp.c_fc": (nn.Linear, QuantizedLinear), "mlp.c_proj": (nn.Linear, QuantizedLinear), "mlp.dropout": (nn.Dropout,),
}  # fmt: skip
MODEL_MODULES: dict[str, tuple[type, ...]] = {
    "": (GPT,), "wte": (nn.Embedding, QuantizedEmbedding), "wpe": (nn.Embedding,), "drop": (nn.Dropout,),
    "h": (nn.ModuleList,), "ln_f": (nn.LayerNorm, nn.RMSNorm), "lm_head": (nn.Linear, QuantizedLinear),
}  # fmt: skip
LARGE = 1 << 20  # Number of weights from which several threads read them; fewer weights fit the caches.
FEW = 4  # tokens, up to which no product needs BLAS, and its threads need no setting
MANY = 8  # tokens, from which several threads read them

# The integers of a block: addresses, four matrices, and the number of places in its cache.
NORM_1, NORM_1_BIAS, NORM_2, NORM_2_BIAS, Q_NORM, K_NORM, KEYS, VALUES, PLACES, WINDOW, MATRICES = range(11)
ATTN, PROJ, FC, OUT = (MATRICES + i * compiled.MATRIX_LENGTH for i in range(4))
BLOCK_LENGTH = MATRICES + 4 * compiled.MATRIX_LENGTH
GELU, TANH_GELU, RELU_SQUARED, SWIGLU = range(4)


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
        if not _is_usual(model, cache) or not all(map(_is_usable, _arrays(model))):
            return None
        return cls(model, cache)

    def __init__(self, model: GPT, cache: KVCache) -> None:
        config = model.config
        self.model, self.cache = model, cache
        self.parameters = list(model.parameters())
        self.arrays = list(_arrays(model))  # The addresses are valid as long as these arrays live.
        self.large = sum(array.size for array in self.arrays) >= LARGE
        self.rms, self.eps = config.norm == "rms", config.norm_eps
        swiglu, gelu = config.mlp == "swiglu", TANH_GELU if config.gelu == "tanh" else GELU
        activation = SWIGLU if swiglu else RELU_SQUARED if config.mlp == "relu2" else gelu
        self.sizes = np.array(
            [config.n_head, config.kv_heads, config.head_size, config.inner_size, activation, 0, 0], np.int64
        )
        self.blocks = np.array([_block_row(b) for b in model.h], np.int64)
        head = model.wte if config.tied else model.lm_head
        self.head = np.array([*_norm_row(model.ln_f), *_matrix_row(head)], np.int64)
        self.padding = np.zeros(cache.batch_size, np.int64) if cache.padding is None else cache.padding
        self.tables: list[Array] = []  # that hold the rotary positions
        self.places, self.first_keys = -1, cache.keys[0]
        self.workspace = np.empty(0, np.float32)
        self.packed = np.empty(0, np.uint8)
        self.quantized = compiled.quantized_linear_pointer() if is_quantized(model) else 0

    def is_current(self) -> bool:
        """Return whether the parameters of the model still have the arrays that this reader reads."""
        return all(tensor.array is array for tensor, array in zip(self.parameters, self.arrays, strict=False))

    def logits(self, ids: Array, count: int = 1) -> Array:
        """Read ids, (B, T); return the logits (B, count, V), float32, after each of the last ones.

        The keys and values of the T tokens are appended to the cache.
        Raises ValueError if they do not fit into the cache, IndexError for a token outside the vocabulary.
        """
        config, cache = self.model.config, self.cache
        B, T = ids.shape
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
        threads = self.large or B * T >= MANY
        run = compiled.run_with_blas if B * T > FEW else run_without_blas
        run(
            read, self.quantized, self.blocks, self.head, x, self.sizes, self.rms, self.eps, cosines, sines,
            self.padding, self.workspace, self.packed, logits, threads=threads,
        )  # fmt: skip
        cache.length += T
        return logits

    def _find_cache(self) -> None:
        """Take the addresses of the cache, which is new or has grown."""
        self.first_keys = self.cache.keys[0]
        self.places = places = self.first_keys.shape[2]
        for row, keys, values in zip(self.blocks, self.cache.keys, self.cache.values, strict=True):
            row[KEYS], row[VALUES], row[PLACES] = _address(keys), _address(values), places

    def _embed(self, ids: Array) -> Array:
        """Return the residual stream (R, C) before the first block."""
        model, cache, config = self.model, self.cache, self.model.config
        wte = model.wte
        flat = ids.reshape(-1)
        x = wte.matrix.dequantize(flat) if isinstance(wte, QuantizedEmbedding) else wte.weight.array[flat]
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


# ---- the integers of a model ----------------------------------------------------------------


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else int(tensor.array.ctypes.data)


def _norm_row(norm: Any) -> list[int]:
    """Return the addresses of the weight and the bias of a norm, 0 for what it does not have."""
    if isinstance(norm, nn.Identity):
        return [0, 0]
    return [_address(norm.weight), _address(norm.bias) if isinstance(norm, nn.LayerNorm) else 0]


def _matrix_row(layer: Any) -> list[int]:
    """Return the integers of the matrix of a linear layer or of an embedding."""
    bias = 0 if isinstance(layer, nn.Embedding | QuantizedEmbedding) else _address(layer.bias)
    if isinstance(layer, QuantizedLinear | QuantizedEmbedding):
        matrix: QuantizedMatrix = layer.matrix
        kind = compiled.FORMATS[matrix.kind]
        return [kind, *matrix.shape, matrix.quants.ctypes.data, matrix.scales.ctypes.data, bias]
    return [compiled.FORMATS["float32"], *layer.weight.shape, _address(layer.weight), 0, bias]


def _block_row(b: Block) -> list[int]:
    """Return the integers of a block, with 0 for its cache."""
    norms = [*_norm_row(b.ln_1), *_norm_row(b.ln_2)]
    heads = [_norm_row(norm)[0] for norm in (b.attn.q_norm, b.attn.k_norm)]
    matrices = [_matrix_row(layer) for layer in (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)]
    return [*norms, *heads, 0, 0, 0, b.attn.window, *(number for row in matrices for number in row)]


def _arrays(model: GPT) -> Iterator[Array]:
    """Yield all arrays of weights that the functions here read."""
    for parameter in model.parameters():
        yield parameter.array
    for module in model.modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            yield module.matrix.quants
            yield module.matrix.scales


def _is_usable(array: Array) -> bool:
    """Return whether an array is on the CPU, contiguous, and float32 or a part of a quantized matrix."""
    usual = type(array) is np.ndarray and array.flags.c_contiguous
    return usual and array.dtype.name in ("float32", "uint8", "float16")


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of the matrix of a layer."""
    quantized = isinstance(layer, QuantizedLinear | QuantizedEmbedding)
    return tuple(layer.matrix.shape if quantized else layer.weight.shape)


def _is_usual(model: GPT, cache: KVCache) -> bool:
    """Return whether the layers are those of GPT(config), with the same types, shapes and options."""
    c = model.config
    if c.rope_scaling == "dynamic" or len(model.h) != c.n_layer or c.n_layer != len(cache.keys):
        return False
    # The functions here would call neither a hook nor a forward pass that the user has put in the place of ours.
    if any(module.has_hooks() or "forward" in vars(module) for module in model.modules()) or _is_patched():
        return False
    C, D, norm = c.n_embd, c.head_size, nn.RMSNorm if c.norm == "rms" else nn.LayerNorm
    absent = {name for name, present in {"wpe": c.position == "learned", "lm_head": not c.tied}.items() if not present}
    outer = {name: module for name, module in model.named_modules() if not name.startswith("h.")}
    if not _have_types(outer, {name: types for name, types in MODEL_MODULES.items() if name not in absent}):
        return False
    norms = [model.ln_f]
    shapes: list[tuple[nn.Module, tuple[int, int]]] = [(model.wte, (c.vocab_size, C))]
    if c.position == "learned":
        shapes.append((model.wpe, (c.block_size, C)))
    if not c.tied:
        shapes.append((model.lm_head, (c.vocab_size, C)))
    for layer, b in enumerate(model.h):
        if not _have_types(dict(b.named_modules()), BLOCK_MODULES):
            return False
        norms += [b.ln_1, b.ln_2]
        window = c.sliding_window if layer >= c.full_layers else 0
        options = (b.attn.n_head, b.attn.n_kv_head, b.attn.head_size, b.attn.window, b.attn.rotary is not None)
        if options != (c.n_head, c.kv_heads, D, window, c.position == "rope"):
            return False
        if (b.mlp.kind, b.mlp.inner_size, b.mlp.approximate == "tanh") != (c.mlp, c.inner_size, c.gelu == "tanh"):
            return False
        for head_norm in (b.attn.q_norm, b.attn.k_norm):
            if isinstance(head_norm, nn.RMSNorm) != c.qk_norm or (c.qk_norm and not _is_norm(head_norm, D, c.norm_eps)):
                return False
        fc = c.inner_size * (2 if c.mlp == "swiglu" else 1)
        shapes += [
            (b.attn.c_attn, ((c.n_head + 2 * c.kv_heads) * D, C)), (b.attn.c_proj, (C, c.n_head * D)),
            (b.mlp.c_fc, (fc, C)), (b.mlp.c_proj, (C, c.inner_size)),
        ]  # fmt: skip
    if any(type(n) is not norm or not _is_norm(n, C, c.norm_eps) for n in norms):
        return False
    return all(_shape(layer) == shape for layer, shape in shapes)


def _forwards() -> list[Any]:
    """Return the functions that are computed here."""
    return [GPT.hidden_states, GPT.embed, GPT.head, *(t.forward for t in TYPES)]  # type: ignore[attr-defined]


def _is_patched() -> bool:
    """Return whether the class of a layer has another forward pass than at first."""
    return any(now is not before for now, before in zip(_forwards(), FORWARDS, strict=True))


def _have_types(modules: dict[str, Any], types: dict[str, tuple[type, ...]]) -> bool:
    """Return whether modules have these names, and each one of the types of its name."""
    return modules.keys() == types.keys() and all(type(module) in types[name] for name, module in modules.items())


def _is_norm(norm: Any, width: int, eps: float) -> bool:
    """Return whether a norm has a weight of this width, and this eps."""
    return norm.eps == eps and norm.weight is not None and tuple(norm.weight.shape) == (width,)


_types = {t for types in (*BLOCK_MODULES.values(), *MODEL_MODULES.values()) for t in types}
TYPES = sorted(_types, key=lambda t: t.__name__)
FORWARDS = _forwards()
