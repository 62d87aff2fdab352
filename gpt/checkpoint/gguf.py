"""GGUF, the one-file format of llama.cpp: metadata, which includes the tokenizer, and weights, often quantized.

The package gguf writes it, and reads it: see `gpt.checkpoint.gguf_file`. The weights of the architectures llama, gpt2,
qwen2 and qwen3 become a `GPT` in float32 or float64, one tensor at a time. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.checkpoint.base import Checkpoint, CheckpointError, Info, damaged
from gpt.checkpoint.families import KeyErrorInConfig, integer, model_config, only, positive
from gpt.checkpoint.foreign import foreign_checkpoint, foreign_config, refuse_training
from gpt.checkpoint.gguf_file import GGUFFile, open_gguf
from gpt.checkpoint.quantization import check_quantize, quantize_parts, report_kinds
from gpt.checkpoint.transfer import absent_biases, build_from_parts, check_parts, split_rows
from gpt.config import ModelConfig
from gpt.errors import extra, short
from gpt.model import GPT, parameter_shapes
from gpt.model.quantized import kind_of
from gpt.model.rotary import inverse_wavelengths, yarn_attention_factor
from gpt.tokenizer import TokenizerError
from gpt.tokenizer.gguf import from_gguf
from tensorlite import serialization
from tensorlite.quantized import QuantizedMatrix

Array = NDArray[Any]

# Types of weights that are written, by the names that llama.cpp gives them.
WRITTEN = ("F32", "F16", "Q8_0")
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}  # what llama.cpp calls a file of these

# Our parameters and theirs, which follow each other along the first dimension; {i} is the number of the block.
NAMES: dict[str, tuple[str, ...]] = {
    "wte.weight": ("token_embd.weight",),
    "wpe.weight": ("position_embd.weight",),
    "lm_head.weight": ("output.weight",),
    **{
        f"{ours}.{part}": (f"{theirs}.{part}",)
        for part in ("weight", "bias")
        for ours, theirs in {
            "ln_f": "output_norm",
            "h.ln_1": "blk.{i}.attn_norm",
            "h.attn.c_proj": "blk.{i}.attn_output",
            "h.attn.q_norm": "blk.{i}.attn_q_norm",
            "h.attn.k_norm": "blk.{i}.attn_k_norm",
            "h.ln_2": "blk.{i}.ffn_norm",
            "h.mlp.c_proj": "blk.{i}.ffn_down",
        }.items()
    },
}
ROPE_FACTORS = "rope_freqs.weight"

# The types of matrices that we compute with as they are, and the kinds of `QuantizedMatrix`; types of plain numbers.
KEPT = {"Q8_0": "q8_0", "Q4_0": "q4_0", "Q4_1": "q4_1"}
PLAIN = {"F64", "F32", "F16", "BF16"}


# ---- reading ------------------------------------------------------------------------------------


def load(
    path: Path, device: str = "auto", *, training: bool = False, dtype: str = "float32", quantize: str = "none"
) -> Checkpoint:
    """Return the model and the tokenizer in a file, as a checkpoint after 0 steps. See `load_model`.

    Raises TokenizerError, too.
    """
    refuse_training(path, training)
    file = open_gguf(path)
    try:
        tokenizer = from_gguf(file.metadata)
    except TokenizerError as error:
        raise TokenizerError(f"{str(path)!r}: {error}") from None
    if tokenizer.vocab_size > vocabulary_size(file):
        raise damaged(
            path, f"tokenizer.ggml.tokens: {tokenizer.vocab_size} tokens, and the model has {vocabulary_size(file)}"
        )
    return foreign_checkpoint(path, model_of(file, device, dtype, quantize), tokenizer, dtype)


def load_info(path: Path) -> Info:
    """Return the configuration of the model in a file, without reading its weights. Raises CheckpointError."""
    return Info(foreign_config(path, read_config(open_gguf(path))), 0)


def load_model(path: str | Path, device: str = "auto", dtype: str = "float32", quantize: str = "none") -> GPT:
    """Return the model in a file, in evaluation mode. Its quantized weights become numbers of `dtype`.

    device: see `train.device`. dtype: float32 or float64. quantize: auto keeps matrices of KEPT as they are, and one
        line of the log says which others become float32; int8 or int4 quantizes all matrices.
    Raises CheckpointError, with the file and the key, if the file has no model that can be used, and DeviceError.
    """
    return model_of(open_gguf(path), device, dtype, quantize)


def model_of(file: GGUFFile, device: str = "auto", dtype: str = "float32", quantize: str = "none") -> GPT:
    """Return the model in an open file. See `load_model`."""
    choice = check_quantize(quantize, device, dtype)
    config = read_config(file)
    sources = match_names(file, config)
    interleaved = file.metadata["general.architecture"] == "llama"
    dropped: Counter[str] = Counter()

    def is_interleaved(name: str, part: int) -> bool:
        return interleaved and ".attn.c_attn." in name and part < 2

    def parts_of(name: str) -> Iterator[Array]:
        for part, source in enumerate(sources[name]):
            if is_interleaved(name, part):
                yield from_interleaved(file.read(source), config)
            else:
                yield from file.read_rows(source)

    def matrix_of(name: str) -> QuantizedMatrix | None:
        kinds = [file.kind(source) for source in sources[name]]
        kept = KEPT.get(kinds[0]) if len(set(kinds)) == 1 and not file.swapped else None
        if choice == "auto" and kept is None:
            if not set(kinds) <= PLAIN:
                dropped["+".join(dict.fromkeys(kinds))] += 1
            return None
        if choice != "auto" and kept != kind_of(choice):
            return quantize_parts(f"{str(file.path)!r}: {name}", parts_of(name), kind_of(choice))
        parts = [file.read_raw(source) for source in sources[name]]
        parts = [from_interleaved(p, config) if is_interleaved(name, i) else p for i, p in enumerate(parts)]
        return QuantizedMatrix.from_blocks(parts[0] if len(parts) == 1 else np.concatenate(parts), KEPT[kinds[0]])

    model = build_from_parts(config, device, dtype, parts_of, None if choice == "none" else matrix_of)
    report_kinds(file.path, dropped, KEPT)
    return model


def read_config(file: GGUFFile) -> ModelConfig:
    """Return the configuration of a file. Raises CheckpointError."""
    kind = file.metadata.get("general.architecture")
    if kind not in ("llama", "gpt2", "qwen2", "qwen3"):
        raise CheckpointError(
            f"{str(file.path)!r}: general.architecture: expected llama, gpt2, qwen2 or qwen3, got {short(kind)}"
        )
    prefix = f"{kind}."
    values = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    try:
        return (gpt2_config if kind == "gpt2" else llama_config)(file, values)
    except KeyErrorInConfig as error:
        raise KeyErrorInConfig(f"{str(file.path)!r}: {prefix}{error}") from None


def vocabulary_size(file: GGUFFile) -> int:
    """Return the number of rows of the token embedding. Raises CheckpointError if there is none."""
    if "token_embd.weight" not in file.tensors:
        raise damaged(file.path, "the tensor token_embd.weight is missing")
    return int(file.tensors["token_embd.weight"].shape[-1])


def gpt2_config(file: GGUFFile, values: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration of a GPT-2. llama.cpp computes its GELU with the tanh approximation."""
    return model_config(
        vocab_size=vocabulary_size(file),
        block_size=integer(values, "context_length"),
        n_layer=integer(values, "block_count"),
        n_head=integer(values, "attention.head_count"),
        n_embd=integer(values, "embedding_length"),
        n_inner=integer(values, "feed_forward_length", 0, low=0),
        norm_eps=positive(values, "attention.layer_norm_epsilon"),
        gelu="tanh",
        bias=True,
        tied="output.weight" not in file.tensors,
    )


def llama_config(file: GGUFFile, values: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration of a Llama or a Qwen."""
    heads, width = integer(values, "attention.head_count"), integer(values, "embedding_length")
    head = integer(values, "attention.key_length", width // heads or 1)
    only(values, "attention.value_length", head, head)
    only(values, "rope.dimension_count", head, head)
    only(values, "expert_count", 0, 0)
    only(values, "attention.causal", True, True)
    only(values, "attention.scale", 0.0, 0.0)
    options: dict[str, Any] = {
        "vocab_size": vocabulary_size(file),
        "block_size": integer(values, "context_length"),
        "n_layer": integer(values, "block_count"),
        "n_head": heads,
        "n_kv_head": integer(values, "attention.head_count_kv", heads),
        "n_embd": width,
        "head_dim": 0 if head * heads == width else head,
        "n_inner": integer(values, "feed_forward_length"),
        "norm_eps": positive(values, "attention.layer_norm_rms_epsilon"),
        "norm": "rms",
        "mlp": "swiglu",
        "position": "rope",
        "rope_theta": positive(values, "rope.freq_base", 10000.0),
        "qkv_bias": "blk.0.attn_q.bias" in file.tensors,
        "qk_norm": "blk.0.attn_q_norm.weight" in file.tensors,
        "sliding_window": integer(values, "attention.sliding_window", 0, low=0),
        "tied": "output.weight" not in file.tensors,
    }
    scaling = only(values, "rope.scaling.type", "none", "none", "linear", "yarn")
    if scaling != "none":
        options["rope_scaling"] = scaling
        options["rope_factor"] = positive(values, "rope.scaling.factor")
        options["rope_original_context"] = integer(
            values, "rope.scaling.original_context_length", options["block_size"]
        )
        if scaling == "yarn":
            options |= yarn_options(values, options["rope_factor"])
    elif ROPE_FACTORS in file.tensors:
        options |= llama3_scaling(file, options)
    return model_config(**options)


def yarn_options(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the options of YaRN alone. llama.cpp multiplies its usual factor, 0.1 ln(factor) + 1, by attn_factor."""
    only(values, "rope.scaling.yarn_log_multiplier", 0.0, 0.0)
    only(values, "rope.scaling.yarn_ext_factor", 1.0, 1.0, -1.0)  # -1: as usual
    only(values, "rope.scaling.yarn_attn_factor", 1.0, 1.0)
    options = {
        "rope_beta_fast": positive(values, "rope.scaling.yarn_beta_fast", 32.0),
        "rope_beta_slow": positive(values, "rope.scaling.yarn_beta_slow", 1.0),
    }
    multiple = positive(values, "rope.scaling.attn_factor", 1.0)
    return options | ({"rope_attention_factor": multiple * yarn_attention_factor(factor)} if multiple != 1 else {})


def llama3_scaling(file: GGUFFile, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of Llama 3's scaling, of which the file has the resulting divisors of the frequencies alone.

    The constants are those of all published models. Raises CheckpointError if they do not give the divisors.
    """
    divisors = file.read(ROPE_FACTORS).astype(np.float64).reshape(-1)
    scaled = {
        "rope_scaling": "llama3", "rope_factor": float(divisors.max(initial=1.0)), "rope_low_freq_factor": 1.0,
        "rope_high_freq_factor": 4.0,
    }  # fmt: skip
    plain, _ = inverse_wavelengths(model_config(**options), 0)
    context = options["block_size"]
    for original in (8192, context, max(1, round(context / scaled["rope_factor"]))):
        config = model_config(**options, **scaled, rope_original_context=original)
        expected = plain / inverse_wavelengths(config, 0)[0]
        if expected.shape == divisors.shape and np.allclose(expected, divisors, rtol=1e-4):
            return {**scaled, "rope_original_context": original}
    raise damaged(file.path, f"{ROPE_FACTORS}: only Llama 3's scaling of rotary positions is supported")


def match_names(file: GGUFFile, config: ModelConfig) -> dict[str, list[str]]:
    """Return the names in a file for each parameter. Raises CheckpointError for a wrong set or a wrong shape."""
    shapes = {name: tuple(int(n) for n in tensor.shape[::-1]) for name, tensor in file.tensors.items()}
    left = dict.fromkeys(shapes)
    sources: dict[str, list[str]] = {}
    for parameter, shape in parameter_shapes(config).items():
        names = names_of(parameter, config)
        for name in names:
            if name not in shapes:
                raise damaged(file.path, f"the tensor {name} is missing")
        check_parts(file.path, parameter, shape, {name: shapes[name] for name in names}, "the metadata")
        for name in names:
            left.pop(name, None)
        sources[parameter] = names
    if config.rope_scaling == "llama3":
        left.pop(ROPE_FACTORS)
    if left:
        name = short(next(iter(left)))
        raise damaged(file.path, f"unexpected tensor {name}: the metadata describe a model without it")
    return sources


def names_of(parameter: str, config: ModelConfig) -> list[str]:
    """Return the names of one of our parameters, such as `h.3.ln_1.weight`."""
    if not parameter.startswith("h."):
        return list(NAMES[parameter])
    _, layer, rest = parameter.split(".", 2)
    module, _, part = rest.rpartition(".")
    theirs: tuple[str, ...]
    if module == "attn.c_attn":
        theirs = ("attn_q", "attn_k", "attn_v") if config.position == "rope" else ("attn_qkv",)
    elif module == "mlp.c_fc":
        theirs = ("ffn_gate", "ffn_up") if config.mlp == "swiglu" else ("ffn_up",)
    else:
        return [name.format(i=layer) for name in NAMES[f"h.{rest}"]]
    return [f"blk.{layer}.{name}.{part}" for name in theirs]


def from_interleaved(rows: Array, config: ModelConfig) -> Array:
    """Return the rows of queries or keys in our order. The architecture llama has the two rows of a pair side by side.

    rows: (heads * D, ...), where D/2 pairs follow each other in each head.
    """
    D = config.head_size
    return rows.reshape(-1, D // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def to_interleaved(rows: Array, config: ModelConfig) -> Array:
    """Return the rows of queries or keys in the order of the architecture llama."""
    D = config.head_size
    return rows.reshape(-1, 2, D // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


# ---- writing ------------------------------------------------------------------------------------


def save_model(
    model: GPT, path: str | Path, weights: str = "F32", metadata: Mapping[str, Any] | None = None, name: str = "model"
) -> None:
    """Write a model that llama.cpp loads. The file is replaced as a whole.

    weights: the type of matrices, F32, F16 or Q8_0; norms and biases are float32. A matrix whose rows are not a
        multiple of 32 long stays F16 instead of Q8_0.
    metadata: more keys, such as those of the tokenizer; values are bool, int, float, str, or lists of one of these.
    Raises CheckpointError if llama.cpp has no such model, and OSError.
    """
    with extra():
        import gguf
    if weights not in WRITTEN:
        raise CheckpointError(f"GGUF: expected weights of type {', '.join(WRITTEN)}, got {short(weights)}")
    config, path = model.config, Path(path)
    kind = architecture_of(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with serialization.atomic_write(path) as temporary:
        writer = gguf.GGUFWriter(temporary, kind)
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[weights])
        for key, value in config_keys(config, kind).items():
            add_value(writer, f"{kind}.{key}", value)
        for key, value in (metadata or {}).items():
            add_value(writer, key, value)
        for theirs, array in written_tensors(model, kind).items():
            data, dtype = encode(array, weights)
            writer.add_tensor(theirs, data, raw_dtype=dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def architecture_of(config: ModelConfig) -> str:
    """Return the architecture that can hold a model. Raises CheckpointError if there is none."""
    c = config
    if c.previous_tokens:
        raise CheckpointError(
            "GGUF: llama.cpp has no embeddings of previous tokens, and this model has "
            f"previous_tokens = {c.previous_tokens}"
        )
    square = c.n_head * c.head_size == c.n_embd
    if (c.norm, c.position, c.mlp) == ("layer", "learned", "gelu") and square and c.kv_heads == c.n_head:
        if c.gelu == "tanh" and not c.qk_norm and not c.sliding_window:
            return "gpt2"
        raise CheckpointError("GGUF: llama.cpp computes GPT-2's GELU with tanh, and this model has gelu = 'erf'")
    if (c.norm, c.position, c.mlp, c.bias) == ("rms", "rope", "swiglu", False):
        if c.sliding_window:
            raise CheckpointError("GGUF: llama.cpp has no window in these models, so sliding_window cannot be written")
        if c.rope_scaling == "dynamic":
            raise CheckpointError("GGUF: llama.cpp has no dynamic scaling of rotary positions")
        if c.rope_scaling == "yarn" and (c.rope_beta_fast, c.rope_beta_slow) != (32, 1):
            # llama.cpp ignores the keys yarn_beta_fast and yarn_beta_slow of these models.
            raise CheckpointError(
                "GGUF: llama.cpp computes YaRN with rope_beta_fast = 32 and rope_beta_slow = 1, and this model has "
                f"{c.rope_beta_fast:g} and {c.rope_beta_slow:g}"
            )
        if c.qk_norm != c.qkv_bias or not c.qk_norm:
            return "qwen3" if c.qk_norm else "qwen2" if c.qkv_bias else "llama"
    options = "norm position mlp bias qkv_bias qk_norm n_head n_kv_head".split()
    shown = ", ".join(f"{name} = {getattr(c, name)!r}" for name in options)
    raise CheckpointError(f"GGUF: llama.cpp has no model with {shown}")


def config_keys(config: ModelConfig, kind: str) -> dict[str, Any]:
    """Return the keys of a model without the prefix of its architecture."""
    keys: dict[str, Any] = {
        "block_count": config.n_layer,
        "context_length": config.block_size,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.inner_size,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.kv_heads,
        "vocab_size": config.vocab_size,
    }
    if kind == "gpt2":
        return keys | {"attention.layer_norm_epsilon": config.norm_eps}
    keys |= {
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        "rope.dimension_count": config.head_size,
        "rope.freq_base": config.rope_theta,
    }
    if config.rope_scaling in ("linear", "yarn"):
        keys |= {"rope.scaling.type": config.rope_scaling, "rope.scaling.factor": config.rope_factor}
        keys["rope.scaling.original_context_length"] = config.original_context
    if config.rope_scaling == "yarn" and config.rope_attention_factor:
        keys["rope.scaling.attn_factor"] = config.rope_attention_factor / yarn_attention_factor(config.rope_factor)
    return keys


def add_value(writer: Any, key: str, value: Any) -> None:
    """Add a value to a file: integers as 32 bits, unsigned where they can be, and numbers as float32."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, Sequence):
        if value:  # The package refuses an empty array.
            writer.add_array(key, value)
    else:
        raise TypeError(f"GGUF: {key}: expected bool, int, float, str or a list, got {short(value)}")


def written_tensors(model: GPT, kind: str) -> dict[str, Array]:
    """Return the tensors of a file by their names, as float32."""
    config, result = model.config, dict[str, Array]()
    state = {name: value.detach().cpu().numpy().astype(np.float32) for name, value in model.state_dict().items()}
    if kind == "gpt2":  # llama.cpp wants all biases.
        state |= {name: np.zeros(shape, np.float32) for name, shape in absent_biases(config).items()}
    for name, value in state.items():
        names = names_of(name, config)
        parts = split_rows(value, config, name) if len(names) > 1 else [value]
        if kind == "llama" and ".attn.c_attn." in name:
            parts = [to_interleaved(part, config) for part in parts[:2]] + parts[2:]
        result |= {theirs: np.ascontiguousarray(part) for theirs, part in zip(names, parts, strict=True)}
    if config.rope_scaling == "llama3":
        unscaled = {"rope_scaling": "none", "rope_factor": 1.0, "rope_original_context": 0}
        unscaled |= {"rope_low_freq_factor": 1.0, "rope_high_freq_factor": 4.0}
        plain = inverse_wavelengths(ModelConfig(**{**vars(config), **unscaled}), 0)[0]
        result[ROPE_FACTORS] = (plain / inverse_wavelengths(config, 0)[0]).astype(np.float32)
    return result


def encode(array: Array, weights: str) -> tuple[Array, Any]:
    """Return the numbers of a tensor as they are written, and their type."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = weights if array.ndim > 1 else "F32"
    if kind == "Q8_0" and array.shape[-1] % 32:
        kind = "F16"
    dtype = GGMLQuantizationType[kind]
    return quantize(array, dtype), dtype
