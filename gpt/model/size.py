"""The cost of a configuration: parameters, memory and arithmetic, without drawing any weights."""

import dataclasses
import functools
import math

from gpt.config import Config, ModelConfig
from gpt.model.shapes import parameter_shapes

# Numbers that an optimizer keeps per parameter: AdamW a mean and a mean square, Muon a mean.
ADAMW_MOMENTS, MUON_MOMENTS = 2, 1

# The parts of a model, each with what the names of its parameters contain.
PARTS = {
    "token embedding (and head)": "wte",
    "position embedding": "wpe",
    "previous-token embeddings": "previous",
    "attention": "attn",
    "MLP": "mlp",
    "layer norms": "ln",
    "head": "lm",
}


@functools.cache
def shapes(model: ModelConfig) -> list[tuple[str, tuple[int, ...], int]]:
    """Return (name, shape, number of layers that have it) of the parameters of a model with one block."""
    one_block = parameter_shapes(dataclasses.replace(model, n_layer=1, full_layers=0))
    return [(name, shape, model.n_layer if name.startswith("h.") else 1) for name, shape in one_block.items()]


def parameters(model: ModelConfig) -> dict[str, int]:
    """Return the number of parameters of each part.

    A tied head has none, because it is the token embedding. Embeddings of previous tokens are a part only if there are
    some, because few models have them.
    """
    result = dict.fromkeys(PARTS, 0)
    for name, shape, layers in shapes(model):
        words = name.replace("_", ".").split(".")
        part = next(part for part, word in PARTS.items() if word in words)
        result[part] += layers * math.prod(shape)
    if model.tied:
        del result["head"]
    if not model.previous_tokens:
        del result["previous-token embeddings"]
    return result


def parameter_count(model: ModelConfig) -> int:
    """Return the number of parameters, 124,439,808 for GPT-2."""
    return sum(parameters(model).values())


def memory(config: Config) -> dict[str, int]:
    """Return the bytes that a training step holds at its peak. All are exact except the activations.

    The activations are an estimate of the values of one batch that the backward pass needs. It assumes that each op
    keeps its inputs or its output once. For each token, a block keeps inputs and outputs of the norms and the residual
    (4 rows of C). It also keeps q, k, v and the attention output, and the hidden layer of the MLP before and after its
    nonlinearity. In GPT-2 these are 16 rows of C. The end of the model keeps 2 rows of C and 2 of V (logits and their
    gradient). Attention weights are not kept but computed again. Dropout adds its masks, with that of attention weights
    one row of T for each head.

    With mixed precision the inputs of the norms, the logits and their gradient stay in float32. Other activations take
    2 bytes, and so does a copy of the parameters.
    """
    m, t = config.model, config.train
    size = {"float32": 4, "float64": 8}[t.parameter_dtype]
    low = 2 if t.is_mixed else size
    count = parameter_count(m)
    block = 4 * m.n_embd + 2 * (m.n_head + m.kv_heads) * m.head_size
    block += (4 if m.mlp == "swiglu" else 2) * m.inner_size
    if m.dropout:
        block += 2 * m.n_embd + (m.n_head * m.block_size if m.attention_dropout else 0)
    wide = 2 * m.n_embd * m.n_layer + m.n_embd + 2 * m.vocab_size
    token = wide * size + (m.n_layer * block + 2 * m.n_embd + 2 * m.vocab_size - wide) * low
    return {
        "parameters": count * size,
        "gradients": count * size,
        "optimizer state": moments(config) * size,
        **({"averaged weights": count * size} if t.ema_decay is not None else {}),
        **({f"parameters in {t.dtype}": count * low} if t.is_mixed else {}),
        "activations (estimate)": t.batch_size * m.block_size * token,
    }


def moments(config: Config) -> int:
    """Return how many numbers the optimizer keeps from step to step."""
    count = ADAMW_MOMENTS * parameter_count(config.model)
    if config.optim.optimizer == "muon":
        inner = sum(
            layers * math.prod(shape)
            for name, shape, layers in shapes(config.model)
            if name.startswith("h.") and len(shape) >= 2
        )
        count -= (ADAMW_MOMENTS - MUON_MOMENTS) * inner
    return count


def flops_per_token(model: ModelConfig) -> int:
    """Return floating-point operations per token, forward and backward: 6 N + 12 L H Q T (PaLM, appendix B).

    N is the number of parameters that multiply. Embeddings do not, unless the token embedding is the head, too. H is
    the number of heads, and Q the width of a head.
    """
    parts = parameters(model)
    added = parts["position embedding"] + parts.get("previous-token embeddings", 0)
    n = sum(parts.values()) - added - (0 if model.tied else parts["token embedding (and head)"])
    return 6 * n + 12 * model.n_layer * model.n_head * model.head_size * model.block_size


def tokens_per_step(config: Config) -> int:
    """Return the number of tokens in one optimizer step."""
    return config.train.grad_accum * config.train.batch_size * config.model.block_size


def flops_per_step(config: Config) -> int:
    """Return floating-point operations of one optimizer step, forward and backward."""
    return flops_per_token(config.model) * tokens_per_step(config)


def summary(config: Config) -> str:
    """Return the text that `info` prints: the parts and the sums, with their units."""
    m, t = config.model, config.train
    count, bytes_ = parameters(m), memory(config)
    step = flops_per_step(config)
    lines = [
        f"{config.name}: {m.n_layer} layers, {m.n_head} heads, {m.n_embd} wide, context {m.block_size}, "
        f"vocabulary {m.vocab_size:,}",
        "",
        *table("parameters", {name: f"{n:,}" for name, n in count.items()}, f"{parameter_count(m):,}"),
        "",
        *table(
            f"memory of a training step ({t.dtype}, {t.batch_size} sequences per batch)",
            {name: format_si(n, "B") for name, n in bytes_.items()},
            format_si(sum(bytes_.values()), "B"),
        ),
        "",
        *table(
            "arithmetic",
            {
                "tokens per step": f"{tokens_per_step(config):,}",
                "per token": format_si(flops_per_token(m), "FLOP"),
                "per step": format_si(step, "FLOP"),
            },
            format_si(step * t.steps, "FLOP"),
            f"the whole run, {t.steps:,} steps",
        ),
    ]
    return "\n".join(lines)


def table(title: str, rows: dict[str, str], total: str, total_name: str = "total") -> list[str]:
    """Return the lines of a table with a name and a value in each row, the total last."""
    return [title, *(f"  {name:<32}{value:>16}" for name, value in [*rows.items(), (total_name, total)])]


def format_si(value: float, unit: str) -> str:
    """Return a number with three digits and a decimal prefix, such as 1.23 MB."""
    power = 0
    while value >= 999.5 and power < 7:
        value, power = value / 1000, power + 1
    digits = max(0, 3 - len(str(round(value)))) if power else 0
    return f"{value:.{digits}f} {' kMGTPEZ'[power].strip()}{unit}"
