"""The shapes of the parameters of a GPT, computed without making one."""

from gpt.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Return the shape of each parameter by its name, in the order of `GPT.state_dict`."""
    V, T, C, D = config.vocab_size, config.block_size, config.n_embd, config.head_size
    queries, keys, inner = config.n_head * D, config.kv_heads * D, config.inner_size
    result: Shapes = {"wte.weight": (V, C)}
    if config.position == "learned":
        result["wpe.weight"] = (T, C)
    result |= {f"previous.{i}.weight": (V + 1, C) for i in range(config.previous_tokens)}
    block = norm("ln_1", config) | linear("attn.c_attn", C, queries + 2 * keys, config.bias or config.qkv_bias)
    block |= linear("attn.c_proj", queries, C, config.bias)
    if config.qk_norm:
        block |= {"attn.q_norm.weight": (D,), "attn.k_norm.weight": (D,)}
    block |= norm("ln_2", config) | linear("mlp.c_fc", C, inner * (1 + (config.mlp == "swiglu")), config.bias)
    block |= linear("mlp.c_proj", inner, C, config.bias)
    for layer in range(config.n_layer):
        result |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    result |= norm("ln_f", config)
    return result if config.tied else result | {"lm_head.weight": (V, C)}


def linear(name: str, inputs: int, outputs: int, bias: bool) -> Shapes:
    """Return the shapes of a linear layer: a matrix (out, in), and a bias if it has one."""
    return {f"{name}.weight": (outputs, inputs), **({f"{name}.bias": (outputs,)} if bias else {})}


def norm(name: str, config: ModelConfig) -> Shapes:
    """Return the shapes of a norm. RMSNorm has no bias."""
    bias = config.bias and config.norm == "layer"
    return {f"{name}.weight": (config.n_embd,), **({f"{name}.bias": (config.n_embd,)} if bias else {})}
