"""The shapes of the parameters of a GPT, computed without making one."""

from gpt.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Return the shape of each parameter by its name, in the order of `GPT.state_dict`."""
    V, T, C = config.vocab_size, config.block_size, config.n_embd
    result: Shapes = {"wte.weight": (V, C)}
    if config.position == "learned":
        result["wpe.weight"] = (T, C)
    block = {**norm("ln_1", config), **linear("attn.c_attn", C, 3 * C, config), **linear("attn.c_proj", C, C, config)}
    block |= {**norm("ln_2", config), **linear("mlp.c_fc", C, 4 * C, config), **linear("mlp.c_proj", 4 * C, C, config)}
    for layer in range(config.n_layer):
        result |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    return result | norm("ln_f", config)


def linear(name: str, inputs: int, outputs: int, config: ModelConfig) -> Shapes:
    """Return the shapes of a linear layer: a matrix (out, in), and a bias if the model has biases."""
    return {f"{name}.weight": (outputs, inputs), **({f"{name}.bias": (outputs,)} if config.bias else {})}


def norm(name: str, config: ModelConfig) -> Shapes:
    """Return the shapes of a layer norm."""
    return {f"{name}.weight": (config.n_embd,), **({f"{name}.bias": (config.n_embd,)} if config.bias else {})}
