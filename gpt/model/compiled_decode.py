"""The forward pass of `gpt.model.GPT` for one token, in compiled functions.

In the model of `make train`, a token takes about twenty small ops per layer, and calling them from Python takes longer
than their arithmetic. Here one compiled call processes a block, for float32 on a CPU. Importing this module needs numba
(the extra `fast`). Without numba, and for all other models, `gpt.generation.Engine` calls the model.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gpt.model.cache import KVCache
from gpt.model.gpt import GPT, MLP, Block, CausalSelfAttention
from tensorlite import Tensor, compiled, nn

Array = NDArray[np.float32]

# The modules of a block and of a model, by name, that the functions here compute.
BLOCK_MODULES = {
    "": Block, "ln_1": nn.LayerNorm, "ln_2": nn.LayerNorm, "attn": CausalSelfAttention, "attn.c_attn": nn.Linear,
    "attn.c_proj": nn.Linear, "attn.q_norm": nn.Identity, "attn.k_norm": nn.Identity, "attn.resid_dropout": nn.Dropout,
    "mlp": MLP, "mlp.c_fc": nn.Linear, "mlp.c_proj": nn.Linear, "mlp.dropout": nn.Dropout,
}  # fmt: skip
MODEL_MODULES = {"": GPT, "wte": nn.Embedding, "drop": nn.Dropout, "h": nn.ModuleList, "ln_f": nn.LayerNorm}
LARGE = 1 << 20  # Number of weights from which several threads read them; fewer weights fit the caches.


@compiled.njit(nogil=True, cache=True, error_model="numpy")
def block(
    pool: int, x: Array, norm_1: Array, norm_1_bias: Array | None, attn: Array, attn_bias: Array | None, proj: Array,
    proj_bias: Array | None, norm_2: Array, norm_2_bias: Array | None, fc: Array, fc_bias: Array | None, out: Array,
    out_bias: Array | None, keys: Array, values: Array, position: int, eps: float, tanh: bool,
) -> None:  # fmt: skip
    """Compute `gpt.model.Block` for one token: update its residual stream x, (C,), and append its key and value.

    keys, values: (H, block_size, D), where the positions before `position` are filled.
    """
    C = x.size
    H, size, D = keys.shape
    y, z, wide = np.empty(C, np.float32), np.empty(C, np.float32), np.empty(4 * C, np.float32)
    heads, scores = np.empty((3, H, D), np.float32), np.empty((H, size), np.float32)

    compiled.layer_norm(x, norm_1, norm_1_bias, eps, y)
    compiled.linear(pool, y, attn, attn_bias, heads.reshape(3 * C))
    for h in range(H):
        for d in range(D):
            keys[h, position, d], values[h, position, d] = heads[1, h, d], heads[2, h, d]
    compiled.decode_attention(pool, heads[0], keys, values, position + 1, scores, y.reshape(H, D))
    compiled.linear(pool, y, proj, proj_bias, z)
    for c in range(C):
        x[c] += z[c]

    compiled.layer_norm(x, norm_2, norm_2_bias, eps, y)
    compiled.linear(pool, y, fc, fc_bias, wide)
    compiled.gelu(wide, tanh)
    compiled.linear(pool, wide, out, out_bias, z)
    for c in range(C):
        x[c] += z[c]


@compiled.njit(nogil=True, cache=True, error_model="numpy")
def head(pool: int, x: Array, norm: Array, norm_bias: Array | None, wte: Array, eps: float, logits: Array) -> None:
    """Compute the final norm and the logits (V,)."""
    y = np.empty_like(x)
    compiled.layer_norm(x, norm, norm_bias, eps, y)
    compiled.linear(pool, y, wte, None, logits)


class CompiledDecoder:
    """The forward pass of a model for single tokens, after those in a cache. `for_model` makes it."""

    @classmethod
    def for_model(cls, model: GPT, cache: KVCache) -> "CompiledDecoder | None":
        """Return a decoder for this model and cache, or None if the functions here do not compute this model."""
        if cache.batch_size != 1 or cache.padding is not None or not _matches_config(model, cache):
            return None
        cache.reserve(cache.block_size)  # The functions here write into arrays that do not grow.
        decoder = cls(model, cache)
        return decoder if all(map(_is_writable_float32, decoder.tensors)) else None

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache = model, cache
        self.tensors = _tensors(model, cache)
        self.arrays = [tensor.array for tensor in self.tensors]
        self.large = sum(array.size for array in self.arrays) >= LARGE
        self.blocks = [
            (*map(_array, _weights(b)), keys.array[0], values.array[0])
            for b, keys, values in zip(model.h, cache.keys, cache.values, strict=True)
        ]

    def is_current(self) -> bool:
        """Return whether the parameters of the model still have the arrays that this decoder reads."""
        return all(tensor.array is array for tensor, array in zip(self.tensors, self.arrays, strict=True))

    def next_logits(self, token: int) -> Array:
        """Return the logits (V,), float32, of the token after this one; append its key and value to the cache.

        Raises ValueError if the cache is full, IndexError for a token outside the vocabulary.
        """
        self.cache.check_capacity(1, 1)
        if not 0 <= token < self.model.config.vocab_size:
            raise IndexError(f"GPT: token {token} is not in the vocabulary of {self.model.config.vocab_size}")
        logits: Array = compiled.run(self._read, token) if self.large else self._read(0, token)
        self.cache.length += 1
        return logits

    def _read(self, pool: int, token: int) -> Array:
        model, position, tanh = self.model, self.cache.length, self.model.config.gelu == "tanh"
        wte, norm, eps = model.wte.weight.array, model.ln_f, model.ln_f.eps
        if model.config.position == "learned":
            x = wte[token] + model.wpe.weight.array[position]
        else:
            x = wte[token] * np.float32(math.sqrt(wte.shape[1])) + model.sinusoids.array[position].astype(np.float32)
        for arrays in self.blocks:
            block(pool, x, *arrays, position, eps, tanh)
        logits = np.empty(len(wte), np.float32)
        # for_model() has checked that the norm has a weight.
        head(pool, x, norm.weight.array, _array(norm.bias), wte, eps, logits)  # type: ignore[union-attr]
        return logits


def _weights(b: Block) -> list[Tensor | None]:
    """Return the weights of a block, each followed by its bias or None, in the order of the arguments of `block`."""
    layers = (b.ln_1, b.attn.c_attn, b.attn.c_proj, b.ln_2, b.mlp.c_fc, b.mlp.c_proj)
    return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


def _tensors(model: GPT, cache: KVCache) -> list[Tensor]:
    """Return all tensors that the functions here read."""
    outer = [model.wte.weight, model.ln_f.weight, model.ln_f.bias, *cache.keys, *cache.values]
    if model.config.position == "learned":
        outer.append(model.wpe.weight)
    return [tensor for tensor in (*outer, *(w for b in model.h for w in _weights(b))) if tensor is not None]


def _array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else tensor.array


def _is_writable_float32(tensor: Tensor) -> bool:
    a = tensor.array
    # To numba, a read-only array is of another type, for which it would compile again.
    return type(a) is np.ndarray and a.dtype == np.float32 and a.flags.carray


def _matches_config(model: GPT, cache: KVCache) -> bool:
    """Return whether the layers are those of GPT(config), with the same types, shapes and options."""
    config = model.config
    V, C = config.vocab_size, config.n_embd
    if config.position == "rope":
        return False
    outer = MODEL_MODULES | ({"wpe": nn.Embedding} if config.position == "learned" else {})
    if {name: type(m) for name, m in model.named_modules() if not name.startswith("h.")} != outer:
        return False
    blocks, norms, eps = list(model.h), [model.ln_f.weight], {model.ln_f.eps}
    if len(blocks) != len(cache.keys):
        return False
    if any(module.has_hooks() for module in model.modules()):  # The functions here would not call them.
        return False
    for b in blocks:
        if {name: type(m) for name, m in b.named_modules()} != BLOCK_MODULES:
            return False
        norms += [b.ln_1.weight, b.ln_2.weight]
        eps |= {b.ln_1.eps, b.ln_2.eps}
        matrices = (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)
        if [m.weight.shape for m in matrices] != [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C)]:
            return False
        heads = (b.attn.n_head, b.attn.n_kv_head, b.attn.window, b.attn.rotary, b.mlp.kind)
        if heads != (config.n_head, config.n_head, 0, None, "gelu"):
            return False
        if b.mlp.approximate != {"erf": "none", "tanh": "tanh"}[config.gelu]:
            return False
    shapes = {None if weight is None else weight.shape for weight in norms}
    return len(eps) == 1 and shapes == {(C,)} and model.wte.weight.shape == (V, C)
