"""What the compiled reader needs to know of a model: addresses and sizes, as integers.

A plan is made once for a model and kept, because the search of its modules takes longer than a token. For each text
only this is looked at: whether the modules still have the attributes that they had.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gpt.model.blocks import MLP, Block, CausalSelfAttention
from gpt.model.gpt import GPT
from gpt.model.quantized import QuantizedEmbedding, QuantizedLinear, matrices
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
    "previous": (nn.ModuleList,), "h": (nn.ModuleList,), "ln_f": (nn.LayerNorm, nn.RMSNorm),
    "lm_head": (nn.Linear, QuantizedLinear),
}  # fmt: skip
# The integers of a block: addresses, four matrices, and the number of places in its cache.
NORM_1, NORM_1_BIAS, NORM_2, NORM_2_BIAS, Q_NORM, K_NORM, KEYS, VALUES, PLACES, WINDOW, MATRICES = range(11)
ATTN, PROJ, FC, OUT = (MATRICES + i * compiled.MATRIX_LENGTH for i in range(4))
BLOCK_LENGTH = MATRICES + 4 * compiled.MATRIX_LENGTH
GELU, TANH_GELU, RELU_SQUARED, SWIGLU = range(4)


class Plan:
    """The weights of a model, whose layers are those of GPT(config), as integers for the compiled reader.

    blocks: (n_layer, BLOCK_LENGTH). head: the addresses of weight and bias of the final norm, then a matrix.
    sizes: H, K, D, I and the activation. arrays: those of `tensors`, the weights and biases; the addresses are valid as
    long as they live.
    """

    def __init__(self, model: GPT) -> None:
        c = model.config
        self.config = c
        # Without the model itself, which the plan would keep alive.
        self.modules = [module for name, module in model.named_modules() if name]
        self.values = attributes(model, self.modules)
        self.tensors = _tensors_of(self.modules)
        self.arrays = [tensor.array for tensor in self.tensors]
        self.matrices = [array for matrix in matrices(model) for array in (matrix.quants, matrix.scales)]
        self.is_quantized = bool(self.matrices)
        self.num_weights = sum(array.size for array in (*self.arrays, *self.matrices))
        self.blocks = np.array([_block_row(b) for b in model.h], np.int64)
        last = model.wte if c.tied else model.lm_head
        self.head = np.array([*_norm_row(model.ln_f), *_matrix_row(last)], np.int64)
        gelu = TANH_GELU if c.gelu == "tanh" else GELU
        activation = {"swiglu": SWIGLU, "relu2": RELU_SQUARED}.get(c.mlp, gelu)
        self.sizes = np.array([c.n_head, c.kv_heads, c.head_size, c.inner_size, activation], np.int64)

    def is_valid(self, model: GPT) -> bool:
        """Return whether a plan that is made now would be the same."""
        if model.config is not self.config or not self.is_current():
            return False
        now = attributes(model, self.modules)
        return len(now) == len(self.values) and all(a is b for a, b in zip(now, self.values, strict=True))

    def is_current(self) -> bool:
        """Return whether the weights still have the arrays whose addresses are here."""
        return all(tensor.array is array for tensor, array in zip(self.tensors, self.arrays, strict=True))


_plans: WeakKeyDictionary[GPT, Plan] = WeakKeyDictionary()


def plan_for(model: GPT) -> Plan | None:
    """Return the plan of a model, or None if the compiled reader does not compute this model."""
    plan = _plans.get(model)
    if plan is None or not plan.is_valid(model):
        _plans.pop(model, None)
        if not _is_usual(model) or not all(is_float32(t.array) for t in _tensors_of(list(model.modules()))):
            return None
        _plans[model] = plan = Plan(model)
    # The compiled reader would call neither a hook nor a forward pass that the user has put in the place of ours.
    return None if _is_patched() or any(module.has_hooks() for module in (model, *plan.modules)) else plan


def attributes(model: GPT, modules: list[nn.Module]) -> list[Any]:
    """Return the values of all attributes of a model and of modules in it, except the mode that `train` sets."""
    values: list[Any] = []
    for module in (model, *modules):
        values += [value for name, value in vars(module).items() if name != "training"]
    return values


def address(tensor: Tensor | None) -> int:
    """Return the address of the numbers of a tensor, 0 for None."""
    return 0 if tensor is None else int(tensor.array.ctypes.data)


def _norm_row(norm: Any) -> list[int]:
    """Return the addresses of the weight and the bias of a norm, 0 for what it does not have."""
    if isinstance(norm, nn.Identity):
        return [0, 0]
    return [address(norm.weight), address(norm.bias) if isinstance(norm, nn.LayerNorm) else 0]


def _matrix_row(layer: Any) -> list[int]:
    """Return the integers of the matrix of a linear layer or of an embedding."""
    bias = 0 if isinstance(layer, nn.Embedding | QuantizedEmbedding) else address(layer.bias)
    if isinstance(layer, QuantizedLinear | QuantizedEmbedding):
        matrix: QuantizedMatrix = layer.matrix
        kind = compiled.FORMATS[matrix.kind]
        return [kind, *matrix.shape, matrix.quants.ctypes.data, matrix.scales.ctypes.data, bias]
    return [compiled.FORMATS["float32"], *layer.weight.shape, address(layer.weight), 0, bias]


def _block_row(b: Block) -> list[int]:
    """Return the integers of a block, with 0 for its cache."""
    norms = [*_norm_row(b.ln_1), *_norm_row(b.ln_2)]
    heads = [_norm_row(norm)[0] for norm in (b.attn.q_norm, b.attn.k_norm)]
    rows = [_matrix_row(layer) for layer in (b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)]
    return [*norms, *heads, 0, 0, 0, b.attn.window, *(number for row in rows for number in row)]


def _tensors_of(modules: list[nn.Module]) -> list[Tensor]:
    """Return the weights and biases of modules, each once. One that the user has replaced may be no parameter."""
    found = [vars(module).get(name) for module in modules for name in ("weight", "bias")]
    return list({id(tensor): tensor for tensor in found if isinstance(tensor, Tensor)}.values())


def is_float32(array: Array) -> bool:
    """Return whether an array is on the CPU, contiguous, and float32: what the functions here can read."""
    return type(array) is np.ndarray and array.flags.c_contiguous and array.dtype == np.float32


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of the matrix of a layer."""
    quantized = isinstance(layer, QuantizedLinear | QuantizedEmbedding)
    return tuple(layer.matrix.shape if quantized else layer.weight.shape)


def _fits(layer: Any, shape: tuple[int, ...]) -> bool:
    """Return whether the matrix of a layer has a shape, and its bias that of a row of results, if there is one."""
    bias = vars(layer).get("bias")
    return _shape(layer) == shape and (bias is None or tuple(bias.shape) == shape[:1])


def _is_usual(model: GPT) -> bool:
    """Return whether the layers are those of GPT(config), with the same types, shapes and options."""
    c = model.config
    if c.rope_scaling == "dynamic" or len(model.h) != c.n_layer:
        return False
    if any("forward" in vars(module) for module in model.modules()):
        return False
    C, D, norm = c.n_embd, c.head_size, nn.RMSNorm if c.norm == "rms" else nn.LayerNorm
    optional = {"wpe": c.position == "learned", "lm_head": not c.tied, "previous": c.previous_tokens > 0}
    wanted = {name: types for name, types in MODEL_MODULES.items() if optional.get(name, True)}
    wanted |= {f"previous.{i}": (nn.Embedding,) for i in range(c.previous_tokens)}
    outer = {name: module for name, module in model.named_modules() if not name.startswith("h.")}
    if not _have_types(outer, wanted):
        return False
    norms = [model.ln_f]
    shapes: list[tuple[nn.Module, tuple[int, int]]] = [(model.wte, (c.vocab_size, C))]
    if c.position == "learned":
        shapes.append((model.wpe, (c.block_size, C)))
    if c.previous_tokens:
        shapes += [(table, (c.vocab_size + 1, C)) for table in model.previous]
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
    return all(_fits(layer, shape) for layer, shape in shapes)


def _forwards() -> list[Any]:
    """Return the functions that are computed here."""
    return [GPT.hidden_states, GPT.embed, GPT.add_previous, GPT.with_earlier, GPT.head, *(t.forward for t in TYPES)]  # type: ignore[attr-defined]


def _is_patched() -> bool:
    """Return whether the class of a layer has another forward pass than at first."""
    return any(now is not before for now, before in zip(_forwards(), FORWARDS, strict=True))


def _have_types(modules: dict[str, Any], types: dict[str, tuple[type, ...]]) -> bool:
    """Return whether modules have these names, and each one of the types of its name."""
    return modules.keys() == types.keys() and all(type(module) in types[name] for name, module in modules.items())


def _is_norm(norm: Any, width: int, eps: float) -> bool:
    """Return whether a norm has a weight of this width, a bias of this width or none, and this eps."""
    return norm.eps == eps and norm.weight is not None and _fits(norm, (width,))


_types = {t for types in (*BLOCK_MODULES.values(), *MODEL_MODULES.values()) for t in types}
TYPES = sorted(_types, key=lambda t: t.__name__)
FORWARDS = _forwards()
