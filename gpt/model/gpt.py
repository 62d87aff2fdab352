"""GPT: a decoder-only transformer with pre-norm blocks and a tied head, with the shapes and initial values of GPT-2.

    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + attention(norm(x));  x = x + mlp(norm(x))         n_layer times
    logits = norm(x) @ (token embedding)^T                    (B, T, V)

In the shape comments B is the batch, T the sequence (at most block_size), C the width n_embd, and V the vocabulary. H
is the number of heads, and D = C / H the width of a head. With a cache, T counts the new tokens only, and S the cached
ones as well.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners".
"""

import math
from typing import Any, Literal

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import Config, ModelConfig
from tensorlite import Tensor, nn


class KVCache:
    """The keys and values of the tokens that a model has read, so that later tokens need not compute them again.

    model: the model that reads with it, under no_grad; dtype and device are those of the model. Set `length` to 0 after
        changing its weights, because the cache was computed with the old ones.
    batch_size: the number of sequences, all of one length.
    """

    length: int
    """The number of positions that are filled. Setting it to 0 forgets all, to a smaller number the last ones."""

    def __init__(self, model: "GPT", batch_size: int = 1) -> None:
        config, weight = model.config, model.wte.weight
        shape = (batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)  # (B, H, block_size, D)
        layers = range(config.n_layer)
        self.batch_size, self.block_size, self.length = batch_size, config.block_size, 0
        self.keys = [tl.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in layers]
        self.values = [tl.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in layers]

    def check_capacity(self, B: int, T: int) -> None:
        """Raise ValueError unless (B, T) new tokens fit after the cached ones."""
        if B != self.batch_size:
            raise ValueError(
                f"GPT: expected a batch of {self.batch_size} sequences, as in the cache, got {B}. "
                f"Make a KVCache with batch_size={B}"
            )
        if self.length + T > self.block_size:
            raise ValueError(
                f"GPT: the cache holds {self.length} of block_size = {self.block_size} positions, and {T} more do not "
                "fit. Set its length to 0 and read fewer of the last tokens again"
            )

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, H, T, D) of T new tokens to a layer; return all of them, (B, H, length + T, D)."""
        stop = self.length + k.shape[2]  # `length` itself changes after the last layer.
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : stop] = k
        values[:, :, self.length : stop] = v
        return keys[:, :, :stop], values[:, :, :stop]


class CausalSelfAttention(nn.Module):
    """Multi-head attention where position t attends to positions 0 to t (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)  # queries, keys and values in one matmul
        self.c_proj = nn.Linear(C, C, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        B, T, C = x.shape
        H, D = self.n_head, C // self.n_head
        heads = self.c_attn(x).view(B, T, 3 * H, D).transpose(1, 2)  # (B, 3H, T, D)
        q, k, v = heads.split(H, dim=1)  # (B, H, T, D) each
        mask = None
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # (B, H, S, D), with the S - T cached tokens
            S = k.shape[2]
            if 1 < T < S:  # Query t also attends to the S - T cached keys, which is_causal does not allow.
                mask = tl.arange(S, device=x.device) <= tl.arange(S - T, S, device=x.device)[:, None]  # (T, S)
        dropout = self.dropout if self.training else 0.0
        causal = k.shape[2] == T
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers with a GELU between them, where the width is 4C."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
        self.c_proj = nn.Linear(4 * C, C, bias=config.bias)
        self.approximate: Literal["none", "tanh"] = "tanh" if config.gelu == "tanh" else "none"
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), self.approximate)  # (B, T, 4C)
        return self.dropout(self.c_proj(x))  # (B, T, C)


class Block(nn.Module):
    """A transformer block: attention mixes positions, the MLP transforms each; both add to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The language model. Its parameters have the names of GPT-2, and matrices the shape (out, in) of nn.Linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_model_config(config)
        C = config.n_embd
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, C)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, C)
        else:
            self.register_buffer("sinusoids", tl.tensor(sinusoids(config.block_size, C)), persistent=False)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(C, bias=config.bias)
        self.init_weights()

    @property
    def device(self) -> tl.Device:
        """Return the device of the parameters."""
        return self.wte.weight.device

    def init_weights(self) -> None:
        """Initialise all weights as GPT-2 does: N(0, 0.02^2), and zero for biases.

        The two projections of a block that add to the residual stream get 0.02 / sqrt(2 n_layer). So the variance of
        the sum of all 2 n_layer projections does not grow with depth.
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim >= 2:
                nn.init.normal_(parameter, 0.0, residual if name.endswith("c_proj.weight") else 0.02)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) for token ids (B, T), int64, and the mean cross-entropy in nats per token.

        logits[:, t] predicts the token after idx[:, t].

        targets: (B, T), int64, -1 where a position does not count. The loss is a Tensor, 0-d, or None without targets.
        cache: see `hidden_states`.

        Raises ValueError if T exceeds block_size or the targets have another shape than idx, TypeError for targets that
        are not integers, IndexError for an id outside the vocabulary.
        """
        if targets is not None:
            check_tensor("targets", targets)
            check_targets(idx, targets)
        logits = self.head(self.hidden_states(idx, cache))  # (B, T, V)
        if targets is None:
            return logits, None
        V = logits.shape[-1]
        return logits, F.cross_entropy(logits.view(-1, V), targets.reshape(-1), ignore_index=-1)

    def hidden_states(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the output of the final norm, (B, T, C), for token ids (B, T).

        With a cache, idx are the tokens after the cached ones, and the cache then holds them as well. Raises ValueError
        if they do not fit, GraphError if gradients would be recorded.
        """
        check_tensor("token ids", idx)
        if idx.ndim != 2:
            raise ValueError(f"GPT: expected token ids of shape (B, T), got {tuple(idx.shape)}")
        B, T = idx.shape
        block_size, start = self.config.block_size, 0  # start: the position of idx[:, 0]
        if T > block_size:
            raise ValueError(f"GPT: expected at most block_size = {block_size} tokens, got {T}. Crop them")
        if cache is not None:
            if tl.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
                raise tl.GraphError("GPT: a cache records no gradients. Call the model under no_grad()")
            cache.check_capacity(B, T)
            start = cache.length
        x = self.wte(idx)  # (B, T, C)
        if self.config.position == "learned":
            x = x + self.wpe.weight[start : start + T]  # (T, C), the same for every sequence
        else:
            positions = self.sinusoids[start : start + T].to(x.dtype)
            x = x * math.sqrt(self.config.n_embd) + positions  # The factor is that of Vaswani et al., 3.4.
        x = self.drop(x)
        for layer, block in enumerate(self.h):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def head(self, x: Tensor) -> Tensor:
        """Return logits (..., V) for hidden states (..., C): their products with the token embeddings."""
        return F.linear(x, self.wte.weight)

    def num_params(self) -> int:
        """Return the number of parameters, 124,439,808 for GPT-2. The head has none of its own."""
        return sum(p.numel() for p in self.parameters())


def check_model_config(config: object) -> None:
    """Raise TypeError, with what to write, unless `config` is a ModelConfig."""
    if not isinstance(config, ModelConfig):
        write = {
            str: f"GPT(Config.load({config!r:.40}).model), for a preset or a TOML file",
            Config: "GPT(config.model)",
            dict: "GPT(ModelConfig(**values))",
        }.get(type(config), "GPT(Config.load('gpt-nano').model)")
        raise TypeError(
            f"GPT: expected a ModelConfig, got {type(config).__name__} {config!r:.60}. Write {write}; "
            "gpt.checkpoint.load(path).model is a trained one"
        )


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError, with what to write, unless a value is a Tensor."""
    if not isinstance(value, Tensor):
        hint = "tl.tensor(tokenizer.encode(text)[None])" if isinstance(value, str) else "tl.tensor(ids)"
        raise TypeError(f"GPT: expected a Tensor of {name}, got {type(value).__name__}. Write {hint}")


def check_targets(idx: Tensor, targets: Tensor) -> None:
    """Raise ValueError or TypeError unless targets are integers in the shape of idx, one for each token."""
    if tuple(targets.shape) != tuple(idx.shape):
        raise ValueError(
            f"GPT: expected targets of the shape of the tokens, {tuple(idx.shape)}, got {tuple(targets.shape)}. "
            "targets[:, t] is the token after idx[:, t]"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"GPT: expected targets that are integers, got {targets.dtype}. Use targets.long()")


def build_model(config: ModelConfig, device: str = "auto", dtype: str = "float32") -> GPT:
    """Return a new model.

    device: a name that tensorlite knows, or `auto` for the default device. dtype: float32 or float64.
    Raises DeviceError.
    """
    target = tl.device(None if device == "auto" else device)
    return GPT(config).to(target, getattr(tl, dtype))


def sinusoids(length: int, width: int) -> np.ndarray:
    """Return position embeddings (length, width), float64, with wavelengths from 2 pi to 20,000 pi.

    PE[t, 2i] = sin(t / 10000^(2i / width)) and PE[t, 2i + 1] = cos of the same angle (Vaswani et al., 3.5).
    """
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)  # (length, width / 2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


class eval_mode:
    """Context manager for evaluation mode under no_grad; afterwards every module has the mode that it had before.

    It can be entered again after it was left, which saves the search for the modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self.modes: list[bool] = []
        self.no_grad = tl.no_grad()

    def __enter__(self) -> None:
        self.modes = [module.training for module in self.modules]
        self.set_modes([False] * len(self.modules))
        self.no_grad.__enter__()

    def __exit__(self, *exc: object) -> None:
        self.no_grad.__exit__(*exc)
        self.set_modes(self.modes)

    def set_modes(self, modes: list[bool]) -> None:
        """Set the mode of each module."""
        for module, mode in zip(self.modules, modes, strict=True):
            if module.training != mode:
                module.training = mode
