"""The GPT's forward pass for one token, as compiled functions: what `gpt.model` says, without Python between the ops.

A token of the model of `make train` takes some twenty small ops a layer, each of which costs Python more time than
its arithmetic. Here a block is one call, for float32 on a CPU. Importing this needs numba (the extra `fast`); without
it, and for all other models, `generate` reads a token as it reads the prompt.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gpt.model import GPT, MLP, Block, CausalSelfAttention, KeyValueCache
from tensorlite import Tensor, compiled, nn

Array = NDArray[np.float32]

INNER = {
    "": Block, "ln_1": nn.LayerNorm, "ln_2": nn.LayerNorm, "attn": CausalSelfAttention, "attn.c_attn": nn.Linear,
    "attn.c_proj": nn.Linear, "attn.resid_dropout": nn.Dropout, "mlp": MLP, "mlp.c_fc": nn.Linear,
    "mlp.c_proj": nn.Linear, "mlp.dropout": nn.Dropout,
}  # fmt: skip
OUTER = {"": GPT, "wte": nn.Embedding, "drop": nn.Dropout, "h": nn.ModuleList, "ln_f": nn.LayerNorm}
LARGE = 1 << 20  # weights from which other cores help to read them; fewer come out of the caches


@compiled.njit(nogil=True, cache=True, error_model="numpy")
def block(
    pool: int, x: Array, norm_1: Array, norm_1_bias: Array | None, attn: Array, attn_bias: Array | None, proj: Array,
    proj_bias: Array | None, norm_2: Array, norm_2_bias: Array | None, fc: Array, fc_bias: Array | None, out: Array,
    out_bias: Array | None, keys: Array, values: Array, position: int, eps: float, tanh: bool,
) -> None:  # fmt: skip
    """`gpt.model.Block`, for one token: adds to its residual stream x, (C,), and to the keys and values.

    keys, values: (H, block_size, D), of which those before `position` are filled.
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
    """The final norm, and the logits (V,)."""
    y = np.empty_like(x)
    compiled.layer_norm(x, norm, norm_bias, eps, y)
    compiled.linear(pool, y, wte, None, logits)


class Decoder:
    """Reads one token after those in a cache, and says the logits of the next; made by `of`."""

    @classmethod
    def of(cls, model: GPT, cache: KeyValueCache) -> "Decoder | None":
        """A decoder for this model and cache, or None if the functions here do not compute what they do."""
        if cache.batch_size != 1 or not _is_as_made(model, cache):
            return None
        decoder = cls(model, cache)
        return decoder if all(map(_is_plain, decoder.tensors)) else None

    def __init__(self, model: GPT, cache: KeyValueCache) -> None:
        self.model, self.cache = model, cache
        self.tensors = _tensors(model, cache)
        self.arrays = [tensor.array for tensor in self.tensors]
        self.large = sum(array.size for array in self.arrays) >= LARGE
        self.blocks = [
            (*map(_array, _weights(b)), keys.array[0], values.array[0])
            for b, keys, values in zip(model.h, cache.keys, cache.values, strict=True)
        ]

    def holds(self) -> bool:
        """Whether the model's parameters still have the arrays in which they were found."""
        return all(tensor.array is array for tensor, array in zip(self.tensors, self.arrays, strict=True))

    def next_logits(self, token: int) -> Array:
        """The logits (V,) of the token after this one, whose key and value join the cache.

        Raises ValueError if the cache is full, IndexError for a token outside the vocabulary.
        """
        self.cache.require(1, 1)
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
        head(pool, x, norm.weight.array, _array(norm.bias), wte, eps, logits)
        return logits


def _weights(b: Block) -> list[Tensor | None]:
    """The weights of a block, each with its bias or None, in the order in which `block` takes them."""
    layers = (b.ln_1, b.attn.c_attn, b.attn.c_proj, b.ln_2, b.mlp.c_fc, b.mlp.c_proj)
    return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


def _tensors(model: GPT, cache: KeyValueCache) -> list[Tensor]:
    """All that the functions here read."""
    outer = [model.wte.weight, model.ln_f.weight, model.ln_f.bias, *cache.keys, *cache.values]
    if model.config.position == "learned":
        outer.append(model.wpe.weight)
    return [tensor for tensor in (*outer, *(w for b in model.h for w in _weights(b))) if tensor is not None]


def _array(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else tensor.array


def _is_plain(tensor: Tensor) -> bool:
    a = tensor.array
    return type(a) is np.ndarray and a.dtype == np.float32 and a.flags.carray  # read-only is another type to numba


def _is_as_made(model: GPT, cache: KeyValueCache) -> bool:
    """Whether the layers are those of GPT(config): nobody exchanged one, its shape or its options."""
    config = model.config
    V, C = config.vocab_size, config.n_embd
    outer = OUTER | ({"wpe": nn.Embedding} if config.position == "learned" else {})
    if {name: type(m) for name, m in model.named_modules() if not name.startswith("h.")} != outer:
        return False
    blocks, norms, eps = list(model.h), [model.ln_f.weight], {model.ln_f.eps}
    if len(blocks) != len(cache.keys):
        return False
    if any(module.has_hooks() for module in model.modules()):  # they would not be called
        return False
    for b in blocks:
        if {name: type(m) for name, m in b.named_modules()} != INNER:
            return False
        norms += [b.ln_1.weight, b.ln_2.weight]
        eps |= {b.ln_1.eps, b.ln_2.eps}
        matrices = (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)
        if [m.weight.shape for m in matrices] != [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C)]:
            return False
        if b.attn.n_head != config.n_head or b.mlp.approximate != {"erf": "none", "tanh": "tanh"}[config.gelu]:
            return False
    shapes = {None if weight is None else weight.shape for weight in norms}
    return len(eps) == 1 and shapes == {(C,)} and model.wte.weight.shape == (V, C)
