"""Families of models: how the keys of their `config.json` and the names of their tensors become ours, and back.

To add a family, write its two functions and its names, and add a line to FAMILIES.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt.checkpoint.base import CheckpointError
from gpt.config import ConfigError, ModelConfig
from gpt.errors import short

Values = Mapping[str, Any]


class KeyErrorInConfig(CheckpointError):
    """A key of `config.json` with a value that cannot be used. The message begins with the key."""


@dataclass(frozen=True)
class Family:
    """How one family of models is read and written.

    config: a function from the keys of `config.json` to a configuration. keys: the inverse, without `model_type`.
    names: for each of our parameters those of the family. They follow each other along the first dimension. `{i}` is
        the number of the block.
    transposed: our parameters that the family stores as (in, out). prefix: that of all names, which files may omit.
    ignored: ends of names that are not parameters.
    """

    config: Callable[[Values], ModelConfig]
    keys: Callable[[ModelConfig], dict[str, Any]]
    architecture: str
    names: Mapping[str, tuple[str, ...]]
    transposed: frozenset[str] = frozenset()
    prefix: str = ""
    ignored: tuple[str, ...] = ()

    def names_of(self, parameter: str) -> tuple[str, ...]:
        """Return the names that the family gives to one of our parameters, such as `h.3.ln_1.weight`."""
        head, _, rest = parameter.partition(".")
        if head != "h":
            return self.names[parameter]
        layer, _, rest = rest.partition(".")
        return tuple(name.format(i=layer) for name in self.names[f"h.{rest}"])

    def is_transposed(self, parameter: str) -> bool:
        """Return whether the family stores one of our parameters as (in, out)."""
        return parameter.split(".", 2)[-1] in self.transposed


# ---- reading keys -------------------------------------------------------------------------------


def value_of(values: Values, key: str, default: Any, kind: type | tuple[type, ...]) -> Any:
    """Return the value of a key, or the default where the key is missing or null. Raises KeyErrorInConfig."""
    value = values.get(key)
    if value is None:
        return default
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        raise KeyErrorInConfig(f"{key}: expected {' or '.join(k.__name__ for k in kinds)}, got {short(value)}")
    return value


def integer(values: Values, key: str, default: int | None = None, low: int = 1) -> Any:
    """Return an integer of at least `low`. Without a default the key is needed."""
    if default is None and values.get(key) is None:
        raise KeyErrorInConfig(f"{key}: it is missing")
    value = value_of(values, key, default, int)
    if not low <= value < 2**31:
        raise KeyErrorInConfig(f"{key}: expected an integer from {low} to {2**31 - 1}, got {short(value)}")
    return value


def positive(values: Values, key: str, default: float | None = None) -> float:
    """Return a finite number above 0. Without a default the key is needed."""
    if default is None and values.get(key) is None:
        raise KeyErrorInConfig(f"{key}: it is missing")
    value = float(min(value_of(values, key, default, (int, float)), 2.0**1023))
    if not 0 < value < 2.0**1023:
        raise KeyErrorInConfig(f"{key}: expected a finite number above 0, got {short(values.get(key))}")
    return value


def only(values: Values, key: str, default: Any, *allowed: Any) -> Any:
    """Return the value of a key for which only some values are supported. Raises KeyErrorInConfig."""
    value = values.get(key, default)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        shown = " or ".join(map(repr, allowed))
        raise KeyErrorInConfig(f"{key}: only {shown} is supported, got {short(value)}")
    return value


def model_config(**options: Any) -> ModelConfig:
    """Return a configuration. Raises KeyErrorInConfig for values that are not valid together."""
    try:
        return ModelConfig(**options)
    except ConfigError as error:
        raise KeyErrorInConfig(f"the values do not fit together: {error}") from None


# ---- GPT-2 --------------------------------------------------------------------------------------

GELU_NAMES = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu": "erf"}


def read_gpt2(values: Values) -> ModelConfig:
    """Return the configuration of a GPT-2."""
    only(values, "scale_attn_weights", True, True)
    only(values, "scale_attn_by_inverse_layer_idx", False, False)
    only(values, "add_cross_attention", False, False)
    return model_config(
        vocab_size=integer(values, "vocab_size", 50257),
        block_size=integer(values, "n_positions", 1024),
        n_layer=integer(values, "n_layer", 12),
        n_head=integer(values, "n_head", 12),
        n_embd=integer(values, "n_embd", 768),
        n_inner=integer(values, "n_inner", 0, low=0),
        gelu=GELU_NAMES[only(values, "activation_function", "gelu_new", *GELU_NAMES)],
        norm_eps=positive(values, "layer_norm_epsilon", 1e-5),
        tied=value_of(values, "tie_word_embeddings", True, bool),
        bias=True,
    )


def write_gpt2(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of a GPT-2."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": config.n_inner or None,
        "activation_function": {"tanh": "gelu_new", "erf": "gelu"}[config.gelu],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop"), config.dropout),
        "attn_pdrop": config.dropout if config.attention_dropout else 0.0,
    }


def same_names(*names: str) -> dict[str, tuple[str, ...]]:
    """Return the names of weights and biases in each block that a family calls as we do."""
    return {f"h.{name}.{part}": (f"h.{{i}}.{name}.{part}",) for name in names for part in ("weight", "bias")}


GPT2_NAMES: dict[str, tuple[str, ...]] = {
    "wte.weight": ("wte.weight",),
    "wpe.weight": ("wpe.weight",),
    **same_names("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"),
    "ln_f.weight": ("ln_f.weight",),
    "ln_f.bias": ("ln_f.bias",),
    "lm_head.weight": ("lm_head.weight",),
}


# ---- Llama and its relatives --------------------------------------------------------------------


def read_llama(values: Values, **options: Any) -> ModelConfig:
    """Return the configuration of a Llama. options: those in which a relative differs."""
    only(values, "hidden_act", "silu", "silu", "swish")
    only(values, "attention_bias", False, False)
    only(values, "mlp_bias", False, False)
    heads = integer(values, "num_attention_heads", 32)
    positions = integer(values, "max_position_embeddings", options.pop("positions", 2048))
    rope = read_rope(values, positions)
    return model_config(
        vocab_size=integer(values, "vocab_size", 32000),
        n_layer=integer(values, "num_hidden_layers", 32),
        n_head=heads,
        n_kv_head=integer(values, "num_key_value_heads", options.pop("kv_heads", heads)),
        n_embd=integer(values, "hidden_size", 4096),
        head_dim=integer(values, "head_dim", options.pop("head_dim", 0), low=0),
        n_inner=integer(values, "intermediate_size", options.pop("inner", 11008)),
        norm_eps=positive(values, "rms_norm_eps", 1e-6),
        tied=value_of(values, "tie_word_embeddings", False, bool),
        norm="rms",
        mlp="swiglu",
        position="rope",
        **{"block_size": positions, **rope, **options},
    )


def read_mistral(values: Values) -> ModelConfig:
    """Return the configuration of a Mistral: a Llama where queries may see a window only."""
    # A missing key is the window of the first Mistral. Null is none.
    window = integer({"sliding_window": 4096, **values}, "sliding_window", 0, low=0)
    return read_llama(values, sliding_window=window, positions=4096 * 32, kv_heads=8, inner=14336)


def read_qwen2(values: Values) -> ModelConfig:
    """Return the configuration of a Qwen2: a Llama with biases of queries, keys and values."""
    return read_llama(values, qkv_bias=True, positions=32768, kv_heads=32, inner=22016, **read_windows(values))


def read_qwen3(values: Values) -> ModelConfig:
    """Return the configuration of a Qwen3: a Llama with a norm of queries and keys."""
    more = {"qk_norm": True, "head_dim": 128, **read_windows(values)}
    return read_llama(values, positions=32768, kv_heads=32, inner=22016, **more)


def read_windows(values: Values) -> dict[str, Any]:
    """Return the options of sliding windows: those of the last blocks, as `layer_types` or the older keys say."""
    layers = integer(values, "num_hidden_layers", 32)
    full = min(layers, integer(values, "max_window_layers", 28, low=0))
    window = integer(values, "sliding_window", 4096) if value_of(values, "use_sliding_window", False, bool) else 0
    found = value_of(values, "layer_types", None, list)
    if found is not None:
        full = next((i for i, kind in enumerate(found) if kind != "full_attention"), layers)
        if len(found) != layers or any(kind != "sliding_attention" for kind in found[full:]):
            raise KeyErrorInConfig(
                f"layer_types: only {layers} of 'full_attention' and then 'sliding_attention' are supported, got "
                f"{short(found)}"
            )
    return {"sliding_window": window, "full_layers": full} if window and full < layers else {}


def read_rope(values: Values, positions: int) -> dict[str, Any]:
    """Return the options of rotary positions: `rope_parameters`, or the older `rope_theta` and `rope_scaling`."""
    # transformers takes the older key where a file has both.
    key = "rope_scaling" if value_of(values, "rope_scaling", None, dict) else "rope_parameters"
    given = value_of(values, key, {}, dict)
    if nested := [name for name, value in given.items() if isinstance(value, dict)]:
        raise KeyErrorInConfig(f"{key}: only the same for all blocks is supported, got some for {short(nested[0])}")
    rope = {"rope_theta": values.get("rope_theta"), **{k: v for k, v in given.items() if v is not None}}
    only(rope, "partial_rotary_factor", 1.0, 1.0, 1)
    scaling = only(rope, "rope_type", rope.get("type", "default"), "default", *SCALINGS)
    options: dict[str, Any] = {"rope_theta": positive(rope, "rope_theta", 10000.0)}
    if scaling == "default":
        return options
    factor = positive(rope, "factor")
    original = integer(rope, "original_max_position_embeddings", positions)
    options |= {"rope_scaling": scaling, "rope_factor": factor, "rope_original_context": original}
    if scaling == "dynamic":
        # transformers counts from max_position_embeddings, and the text may be longer than that.
        options |= {"rope_original_context": positions, "block_size": math.floor(factor * positions)}
    if scaling == "llama3":
        options["rope_low_freq_factor"] = positive(rope, "low_freq_factor")
        options["rope_high_freq_factor"] = positive(rope, "high_freq_factor")
    if scaling == "yarn":
        only(rope, "truncate", True, True)
        options["rope_beta_fast"] = positive(rope, "beta_fast", 32.0)
        options["rope_beta_slow"] = positive(rope, "beta_slow", 1.0)
        options["block_size"] = max(positions, math.floor(factor * original))
        if rope.get("attention_factor"):
            options["rope_attention_factor"] = positive(rope, "attention_factor")
        elif rope.get("mscale") and rope.get("mscale_all_dim"):
            log = 0.1 * math.log(factor) if factor > 1 else 0.0
            scales = (positive(rope, key) * log + 1 for key in ("mscale", "mscale_all_dim"))
            options["rope_attention_factor"] = next(scales) / next(scales)
    return options


SCALINGS = ("linear", "dynamic", "yarn", "llama3")


def write_llama(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of a Llama."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.inner_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.original_context if config.rope_scaling == "dynamic" else config.block_size,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "attention_dropout": config.dropout if config.attention_dropout else 0.0,
        "rope_theta": config.rope_theta,  # Readers of before transformers 5 look here.
        "rope_parameters": write_rope(config),
    }


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Return `rope_parameters`."""
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_type": "default" if scaling == "none" else scaling, "rope_theta": config.rope_theta}
    if scaling != "none":
        rope["factor"] = config.rope_factor
    if scaling in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = config.original_context
    if scaling == "llama3":
        rope |= {"low_freq_factor": config.rope_low_freq_factor, "high_freq_factor": config.rope_high_freq_factor}
    if scaling == "yarn":
        rope |= {"beta_fast": config.rope_beta_fast, "beta_slow": config.rope_beta_slow}
        if config.rope_attention_factor:
            rope["attention_factor"] = config.rope_attention_factor
    return rope


def write_mistral(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of a Mistral."""
    return {**write_llama(config), "sliding_window": config.sliding_window or None}


def write_qwen(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of a Qwen2 or a Qwen3."""
    full = min(config.full_layers, config.n_layer) if config.sliding_window else config.n_layer
    return {
        **write_llama(config),
        "use_sliding_window": bool(config.sliding_window),
        "sliding_window": config.sliding_window or None,
        "max_window_layers": full,
        "layer_types": ["full_attention"] * full + ["sliding_attention"] * (config.n_layer - full),
    }


def attention_names(part: str) -> tuple[str, ...]:
    """Return the names of queries, keys and values in a block."""
    return tuple(f"layers.{{i}}.self_attn.{name}_proj.{part}" for name in "qkv")


LLAMA_NAMES: dict[str, tuple[str, ...]] = {
    "wte.weight": ("embed_tokens.weight",),
    "h.ln_1.weight": ("layers.{i}.input_layernorm.weight",),
    "h.attn.c_attn.weight": attention_names("weight"),
    "h.attn.c_attn.bias": attention_names("bias"),
    "h.attn.c_proj.weight": ("layers.{i}.self_attn.o_proj.weight",),
    "h.attn.q_norm.weight": ("layers.{i}.self_attn.q_norm.weight",),
    "h.attn.k_norm.weight": ("layers.{i}.self_attn.k_norm.weight",),
    "h.ln_2.weight": ("layers.{i}.post_attention_layernorm.weight",),
    "h.mlp.c_fc.weight": ("layers.{i}.mlp.gate_proj.weight", "layers.{i}.mlp.up_proj.weight"),
    "h.mlp.c_proj.weight": ("layers.{i}.mlp.down_proj.weight",),
    "ln_f.weight": ("norm.weight",),
    "lm_head.weight": ("lm_head.weight",),
}


def relative(
    config: Callable[[Values], ModelConfig], keys: Callable[[ModelConfig], dict[str, Any]], name: str
) -> Family:
    """Return a family with the names of Llama."""
    ignored = ("rotary_emb.inv_freq",)
    return Family(config, keys, f"{name}ForCausalLM", LLAMA_NAMES, prefix="model.", ignored=ignored)


# By `model_type`.
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        read_gpt2,
        write_gpt2,
        "GPT2LMHeadModel",
        GPT2_NAMES,
        transposed=frozenset(
            ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
        ),
        prefix="transformer.",
        ignored=(".attn.bias", ".attn.masked_bias"),
    ),
    "llama": relative(read_llama, write_llama, "Llama"),
    "mistral": relative(read_mistral, write_mistral, "Mistral"),
    "qwen2": relative(read_qwen2, write_qwen, "Qwen2"),
    "qwen3": relative(read_qwen3, write_qwen, "Qwen3"),
}


def family_of(config: ModelConfig) -> str:
    """Return the `model_type` of the family that can hold a model. Raises CheckpointError if there is none."""
    c = config
    if c.previous_tokens:
        raise CheckpointError(
            f"no family ({', '.join(FAMILIES)}) has embeddings of previous tokens, and this model has "
            f"previous_tokens = {c.previous_tokens}"
        )
    square = c.n_head * c.head_size == c.n_embd
    gpt2 = (c.norm, c.position, c.mlp) == ("layer", "learned", "gelu") and not c.qk_norm and not c.sliding_window
    if gpt2 and square and c.kv_heads == c.n_head:
        return "gpt2"
    if (c.norm, c.position, c.mlp, c.bias) == ("rms", "rope", "swiglu", False):
        late = bool(c.sliding_window and c.full_layers)
        if c.qk_norm and not c.qkv_bias:
            return "qwen3"
        if not c.qk_norm and (c.qkv_bias or late) and square:
            return "qwen2"
        if not c.qk_norm and not c.qkv_bias and not late:
            return "mistral" if c.sliding_window else "llama"
    options = "norm position mlp bias qkv_bias qk_norm n_head n_kv_head head_dim sliding_window".split()
    shown = ", ".join(f"{name} = {getattr(c, name)!r}" for name in options)
    raise CheckpointError(f"no family ({', '.join(FAMILIES)}) has a model with {shown}")
