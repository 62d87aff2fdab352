"""Count the arithmetic and the memory traffic that a GPT needs at least.

A multiplication with its addition counts as two operations. Matrix products are counted, nothing else. Attention counts
only pairs of positions that a causal mask leaves. A backward pass has twice the products of a forward pass.
"""

from gpt.config import ModelConfig
from gpt.model.size import parameter_count


def product_weights(config: ModelConfig) -> int:
    """Return the number of weights that each token is multiplied by: all but norms, biases and positions."""
    block = 12 * config.n_embd**2  # queries, keys, values: 3; output: 1; MLP: 4 and 4
    return config.n_layer * block + config.vocab_size * config.n_embd


def forward_flops(config: ModelConfig, start: int, stop: int) -> float:
    """Return the operations that the logits of the tokens at the positions from start to stop - 1 take."""
    pairs = (stop * (stop + 1) - start * (start + 1)) / 2
    return 2 * product_weights(config) * (stop - start) + 4 * config.n_layer * config.n_embd * pairs


def step_flops(config: ModelConfig, batch_size: int) -> float:
    """Return the operations of a training step: forward and backward of whole contexts, without the optimizer."""
    return 3 * batch_size * forward_flops(config, 0, config.block_size)


def prompt_flops(config: ModelConfig, length: int) -> float:
    """Return the operations that a prompt takes, of which only the last token needs logits."""
    return forward_flops(config, 0, length) - 2 * config.vocab_size * config.n_embd * (length - 1)


def token_bytes(config: ModelConfig) -> int:
    """Return the bytes of float32 weights that a token needs: all but those of the other positions."""
    return 4 * (parameter_count(config) - (config.block_size - 1) * config.n_embd)
