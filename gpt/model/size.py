"""What a configuration costs, from its numbers alone: parameters, memory and arithmetic. Builds no model."""

from gpt.config import Config, ModelConfig

# AdamW keeps a mean and a mean square for each parameter, Muon a mean.
ADAMW_MOMENTS, MUON_MOMENTS = 2, 1


def parameters(model: ModelConfig) -> dict[str, int]:
    """Number of parameters of each part. The head is the token embedding, so that it adds none."""
    C, V = model.n_embd, model.vocab_size
    bias = int(model.bias)
    norm = C + bias * C
    attention = C * 3 * C + bias * 3 * C + C * C + bias * C  # query, key and value; projection
    mlp = C * 4 * C + bias * 4 * C + 4 * C * C + bias * C
    return {
        "token embedding (and head)": V * C,
        "position embedding": model.block_size * C if model.position == "learned" else 0,
        "attention": model.n_layer * attention,
        "MLP": model.n_layer * mlp,
        "layer norms": (2 * model.n_layer + 1) * norm,
    }


def parameter_count(model: ModelConfig) -> int:
    """All parameters: 124,439,808 for GPT-2."""
    return sum(parameters(model).values())


def memory(config: Config) -> dict[str, int]:
    """Bytes that a training step holds at its peak. All but the activations are exact.

    Activations are an estimate: what the backward pass needs of one batch, if each operation keeps its inputs
    or its output once. For a token that is, in each block, 16 rows of C (norm inputs and outputs, q, k, v,
    attention output, MLP hidden layer before and after GELU, residual); and at the end 2 rows of C and 2 of V
    (logits and their gradient). Attention weights are computed again, not kept. Dropout adds its masks, for each
    head one of T.
    """
    m, t = config.model, config.train
    size = {"float32": 4, "float64": 8}[t.dtype]
    count = parameter_count(m)
    block = 16 * m.n_embd
    if m.dropout:
        block += 2 * m.n_embd + m.n_head * m.block_size
    token = m.n_layer * block + 2 * m.n_embd + 2 * m.vocab_size
    return {
        "parameters": count * size,
        "gradients": count * size,
        "optimizer state": moments(config) * size,
        "activations (estimate)": t.batch_size * m.block_size * token * size,
    }


def moments(config: Config) -> int:
    """Numbers that the optimizer keeps from step to step."""
    m = config.model
    count = ADAMW_MOMENTS * parameter_count(m)
    if config.optim.optimizer == "muon":
        inner = m.n_layer * 12 * m.n_embd**2  # the four matrices of each block
        count -= (ADAMW_MOMENTS - MUON_MOMENTS) * inner
    return count


def flops_per_token(model: ModelConfig) -> int:
    """Floating-point operations, forward and backward, a token: 6 N + 12 L H Q T (PaLM, appendix B).

    N leaves out the position embedding, which multiplies nothing; the token embedding counts, as the head. Q
    is the width of a head: H Q = C.
    """
    n = parameter_count(model) - parameters(model)["position embedding"]
    return 6 * n + 12 * model.n_layer * model.n_embd * model.block_size


def tokens_per_step(config: Config) -> int:
    return config.train.grad_accum * config.train.batch_size * config.model.block_size


def flops_per_step(config: Config) -> int:
    """Floating-point operations of one optimizer step, forward and backward."""
    return flops_per_token(config.model) * tokens_per_step(config)


def report(config: Config) -> str:
    """What `info` prints: the parts and the sums, with their units."""
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
            f"memory of a training step ({t.dtype}, {t.batch_size} sequences a batch)",
            {name: scaled(n, "B") for name, n in bytes_.items()},
            scaled(sum(bytes_.values()), "B"),
        ),
        "",
        *table(
            "arithmetic",
            {
                "tokens a step": f"{tokens_per_step(config):,}",
                "a token": scaled(flops_per_token(m), "FLOP"),
                "a step": scaled(step, "FLOP"),
            },
            scaled(step * t.steps, "FLOP"),
            f"the whole run, {t.steps:,} steps",
        ),
    ]
    return "\n".join(lines)


def table(title: str, rows: dict[str, str], total: str, total_name: str = "total") -> list[str]:
    return [title, *(f"  {name:<32}{value:>16}" for name, value in [*rows.items(), (total_name, total)])]


def scaled(value: float, unit: str) -> str:
    """A number with three digits and a decimal prefix: 1.23 MB."""
    power = 0
    while value >= 999.5 and power < 7:
        value, power = value / 1000, power + 1
    digits = max(0, 3 - len(str(round(value)))) if power else 0
    return f"{value:.{digits}f} {' kMGTPEZ'[power].strip()}{unit}"
