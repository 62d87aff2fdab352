"""GPT: a decoder-only transformer with pre-norm blocks. By default it has the shapes and initial values of GPT-2.

    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + attention(norm(x));  x = x + mlp(norm(x))         n_layer times
    logits = norm(x) @ (token embedding)^T                    (B, T, V)

The options of `ModelConfig` make other families out of it, such as Llama: rotary positions instead of the position
embedding, RMSNorm, SwiGLU, fewer heads of keys and values than of queries, and a head with weights of its own.

In the shape comments B is the batch, T the sequence (at most block_size), C the width n_embd, and V the vocabulary. H
is the number of query heads, K that of keys and values, and D the width of a head. With a cache, T counts the new
tokens only, and S the cached ones as well.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners"; Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models"; Ainslie et al. 2023,
"GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints".
"""

import math
from threading import Lock
from typing import Any, Literal

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import Config, ModelConfig
from gpt.model.cache import KVCache
from gpt.model.packed import PackedDocuments
from gpt.model.quantized import QuantizedEmbedding, matrices, refuse_quantized
from gpt.model.rotary import RotaryTable, rotate
from gpt.model.window import WindowMask, visible_keys
from tensorlite import Tensor, nn


class CausalSelfAttention(nn.Module):
    """Multi-head attention where position t attends to positions 0 to t (Vaswani et al. 2017, section 3.2).

    layer: the number of its block, which decides whether it has the sliding window. rotary: for rotary positions.
    seen: for the sliding window; None for a new one.
    """

    def __init__(
        self, config: ModelConfig, layer: int = 0, rotary: RotaryTable | None = None, seen: WindowMask | None = None
    ) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_size
        self.n_head, self.n_kv_head, self.head_size = config.n_head, config.kv_heads, D
        self.window = config.sliding_window if layer >= config.full_layers else 0
        self.dropout = config.dropout if config.attention_dropout else 0.0  # of attention weights
        self.rotary, self.seen = rotary, seen or WindowMask(config.sliding_window, config.block_size)
        outputs = (self.n_head + 2 * self.n_kv_head) * D  # queries, keys and values in one matmul
        self.c_attn = nn.Linear(C, outputs, bias=config.bias or config.qkv_bias)
        self.c_proj = nn.Linear(self.n_head * D, C, bias=config.bias)
        self.q_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity()
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> Tensor:
        B, T, _ = x.shape
        q, k, v, mask = self.inputs_of_attention(x, cache, layer, documents)
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and k.shape[-2] == T
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal)
        y = y.reshape(B, self.n_head, T, self.head_size).transpose(1, 2)
        return self.resid_dropout(self.c_proj(y.reshape(B, T, self.n_head * self.head_size)))  # heads side by side

    def inputs_of_attention(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries (B, H, T, D), keys and values (B, H, S, D), and what each query sees, for x (B, T, C).

        Where H / K queries share a key they are (B, K, H / K, T, D) and twice (B, K, 1, S, D). The mask is None if a
        query sees its own key and those before it.
        """
        B, T, _ = x.shape
        H, K, D = self.n_head, self.n_kv_head, self.head_size
        heads = self.c_attn(x).view(B, T, H + 2 * K, D).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = heads.split([H, K, K], dim=1)  # (B, H, T, D), and twice (B, K, T, D)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = self.turn_and_cache(q, k, v, cache, layer, documents)
        S, padding = k.shape[2], None if cache is None else cache.padding
        mask = None
        windowed = 0 < self.window < S
        if windowed and T == S and padding is None:
            mask = self.seen(T, x)
        elif windowed or padding is not None or 1 < T < S:
            mask = visible_keys(T, S, self.window, padding).to(x.device)  # is_causal alone does not say it.
        if documents is not None:
            mask = documents.mask(self.window)
        if K < H:
            q, k, v = q.reshape(B, K, H // K, T, D), k.unsqueeze(2), v.unsqueeze(2)
            mask = mask if mask is None or mask.ndim == 2 else mask.unsqueeze(2)
        return q, k, v, mask

    def turn_and_cache(
        self, q: Tensor, k: Tensor, v: Tensor, cache: KVCache | None, layer: int, documents: PackedDocuments | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, and the keys and values of all positions. With rotary positions they are turned."""
        start = 0 if cache is None else cache.length
        stop = start + q.shape[2]
        if self.rotary is None:
            if cache is not None:
                k, v = cache.extend(layer, k, v)
            return q, k, v
        table = self.rotary(stop, q)
        if documents is not None:
            turns = table[0][documents.positions].unsqueeze(1), table[1][documents.positions].unsqueeze(1)
            return rotate(q, *turns), rotate(k, *turns), v
        late = self.rotary.turns_late  # Then the cache holds keys that are not turned.
        new, every = positions_of(table, start, stop, cache), positions_of(table, 0, stop, cache)
        q, k = rotate(q, *new), k if late else rotate(k, *new)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return q, rotate(k, *every) if late else k, v


def positions_of(
    table: tuple[Tensor, Tensor], start: int, stop: int, cache: KVCache | None
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the places from `start` to `stop`: (T, D), or (B, 1, T, D) with padding."""
    if cache is None or cache.padding is None:
        return table[0][start:stop], table[1][start:stop]
    positions = cache.positions(start, stop).to(table[0].device)
    return table[0][positions].unsqueeze(1), table[1][positions].unsqueeze(1)


class MLP(nn.Module):
    """Two linear layers with a nonlinearity between them, where the width is I = 4C by default.

    gelu: GELU. relu2: ReLU squared (So et al. 2021, "Primer"). swiglu: the first layer has 2I outputs, gate and value,
    and silu(gate) * value goes on (Shazeer 2020, "GLU Variants Improve Transformer").
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, self.inner_size, self.kind = config.n_embd, config.inner_size, config.mlp
        self.c_fc = nn.Linear(C, self.inner_size * (2 if self.kind == "swiglu" else 1), bias=config.bias)
        self.c_proj = nn.Linear(self.inner_size, C, bias=config.bias)
        self.approximate: Literal["none", "tanh"] = "tanh" if config.gelu == "tanh" else "none"
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)  # (B, T, I), or (B, T, 2I)
        if self.kind == "swiglu":
            gate, value = x.split(self.inner_size, dim=-1)
            x = F.silu(gate) * value
        elif self.kind == "relu2":
            x = F.relu(x)
            x = x * x
        else:
            x = F.gelu(x, self.approximate)
        return self.dropout(self.c_proj(x))  # (B, T, C)


class Block(nn.Module):
    """A transformer block: attention mixes positions, the MLP transforms each; both add to the residual stream."""

    def __init__(
        self, config: ModelConfig, layer: int = 0, rotary: RotaryTable | None = None, seen: WindowMask | None = None
    ) -> None:
        super().__init__()
        self.ln_1 = build_norm(config)
        self.attn = CausalSelfAttention(config, layer, rotary, seen)
        self.ln_2 = build_norm(config)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, documents: PackedDocuments | None = None
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer, documents)
        return x + self.mlp(self.ln_2(x))


def build_norm(config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """Return a norm of the residual stream."""
    if config.norm == "rms":
        return nn.RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, config.norm_eps, bias=config.bias)


class GPT(nn.Module):
    """The language model. Its parameters have the names of GPT-2, and matrices the shape (out, in) of nn.Linear.

    activation_checkpointing: whether the backward pass computes each block again from its input, instead of keeping
    what the ops of the block save (see `tl.checkpoint`). It can be changed at any time; results have the same bits.
    """

    activation_checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_model_config(config)
        C = config.n_embd
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, C)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.block_size, C)
        elif config.position == "sinusoidal":
            self.register_buffer("sinusoids", tl.tensor(sinusoids(config.block_size, C)), persistent=False)
        if config.previous_tokens:
            # Table i is for the token i + 1 places before. Its last row is for a place before the text.
            self.previous = nn.ModuleList(
                [nn.Embedding(config.vocab_size + 1, C) for _ in range(config.previous_tokens)]
            )
        self.drop = nn.Dropout(config.dropout)
        rotary = RotaryTable(config) if config.position == "rope" else None
        seen = WindowMask(config.sliding_window, config.block_size)
        self.h = nn.ModuleList([Block(config, layer, rotary, seen) for layer in range(config.n_layer)])
        self.ln_f = build_norm(config)
        if not config.tied:
            self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
        self.init_weights()

    @property
    def device(self) -> tl.Device:
        """Return the device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the parameters and of the activations. Quantized matrices have another."""
        return next(self.parameters()).dtype

    def init_weights(self) -> None:
        """Initialise all weights as GPT-2 does: N(0, init_std^2), and zero for biases. GPT-2's init_std is 0.02.

        The two projections of a block that add to the residual stream get init_std / sqrt(2 n_layer). So the variance
        of the sum of all 2 n_layer projections does not grow with depth. With `zero_init`, they and a separate head get
        zeros: each block begins as the identity, and each prediction as uniform.
        """
        std, zero = self.config.init_std, self.config.zero_init
        residual = 0.0 if zero else std / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim >= 2:
                head = 0.0 if zero and name == "lm_head.weight" else std
                nn.init.normal_(parameter, 0.0, residual if name.endswith("c_proj.weight") else head)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None, documents: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return logits (B, T, V) for token ids (B, T), int64, and the mean cross-entropy in nats per token.

        logits[:, t] predicts the token after idx[:, t].

        targets: (B, T), int64, -1 where a position does not count. The loss is a Tensor, 0-d, or None without targets.
        cache, documents: see `hidden_states`.

        Raises ValueError if T exceeds block_size, or if the targets have another shape than idx. Raises TypeError for
        targets that are not integers, and IndexError for an id outside the vocabulary.
        """
        if targets is not None:
            check_tensor("targets", targets)
            check_targets(idx, targets)
        logits = self.head(self.hidden_states(idx, cache, documents))  # (B, T, V)
        if targets is None:
            return logits, None
        V = logits.shape[-1]
        return logits, F.cross_entropy(logits.view(-1, V), targets.reshape(-1), ignore_index=-1)

    def hidden_states(
        self, idx: Tensor, cache: KVCache | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """Return the output of the final norm, (B, T, C), for token ids (B, T).

        With a cache, idx are the tokens after the cached ones, and the cache then holds them as well. Raises ValueError
        if they do not fit, GraphError if gradients would be recorded.

        documents: (B, T), int64, the number of the document of each token, where a sequence has several, one after the
            other. Each then has attention and positions of its own, as if it was alone. A cache has no documents.
        """
        check_tensor("token ids", idx)
        if idx.ndim != 2:
            raise ValueError(f"GPT: expected token ids of shape (B, T), got {tuple(idx.shape)}")
        B, T = idx.shape
        block_size = self.config.block_size
        if T > block_size:
            raise ValueError(f"GPT: expected at most block_size = {block_size} tokens, got {T}. Crop them")
        if cache is not None:
            if tl.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
                raise tl.GraphError("GPT: a cache records no gradients. Call the model under no_grad()")
            cache.check_capacity(B, T)
        packed = None if documents is None else PackedDocuments(documents, idx)
        if packed is not None and cache is not None:
            raise ValueError("GPT: expected documents or a cache, got both. Read each document with a cache of its own")
        x = self.drop(self.embed(idx, cache, packed))
        recompute = self.activation_checkpointing and cache is None
        for layer, block in enumerate(self.h):
            x = tl.checkpoint(block, x, documents=packed) if recompute else block(x, cache, layer, packed)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def embed(
        self, idx: Tensor, cache: KVCache | None = None, documents: PackedDocuments | None = None
    ) -> Tensor:
        """Return the token embeddings (B, T, C) of idx (B, T), with the positions added unless they are rotary."""
        x = self.wte(idx)  # (B, T, C)
        if self.config.previous_tokens:
            x = self.add_previous(x, idx, cache, documents)
        if self.config.position == "rope":
            return x
        start = 0 if cache is None else cache.length  # the position of idx[:, 0]
        table = self.wpe.weight if self.config.position == "learned" else self.sinusoids.to(x.dtype)
        if documents is not None:
            positions = table[documents.positions]  # (B, T, C)
        elif cache is None or cache.padding is None:
            positions = table[start : start + idx.shape[1]]  # (T, C), the same for every sequence
        else:
            positions = table[cache.positions(start, start + idx.shape[1]).to(table.device)]  # (B, T, C)
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # The factor is that of Vaswani et al., 3.4.
        return x + positions

    def add_previous(
        self, x: Tensor, idx: Tensor, cache: KVCache | None = None, documents: PackedDocuments | None = None
    ) -> Tensor:
        """Return x (B, T, C) plus the embeddings of the tokens before each of idx (B, T), each from its own table.

        So the first block sees the last few tokens at once, as Bengio et al. 2003, "A Neural Probabilistic Language
        Model", equation 1, puts their embeddings side by side.
        """
        tokens, T = self.with_earlier(idx, cache), idx.shape[1]
        for i, table in enumerate(self.previous):
            stop = tokens.shape[1] - 1 - i
            earlier = tokens[:, stop - T : stop]
            if documents is not None:
                earlier = tl.where(documents.positions > i, earlier, self.config.vocab_size)
            x = x + table(earlier)
        return x

    def with_earlier(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the previous_tokens tokens before idx (B, T), and idx. The id V stands for a place before the text.

        With a cache, idx are also appended to its tokens.
        """
        (B, T), V, count = idx.shape, self.config.vocab_size, self.config.previous_tokens
        if cache is None:
            return tl.cat([tl.full((B, count), V, dtype=idx.dtype, device=idx.device), idx], dim=1)
        cache.append_tokens(idx)
        return cache.tokens_between(cache.length - count, cache.length + T, V)

    def head(self, x: Tensor) -> Tensor:
        """Return logits (..., V) for hidden states (..., C): their products with the token embeddings, or lm_head."""
        if not self.config.tied:
            return self.lm_head(x)
        return self.wte.logits(x) if isinstance(self.wte, QuantizedEmbedding) else F.linear(x, self.wte.weight)

    def num_params(self) -> int:
        """Return the number of parameters, 124,439,808 for GPT-2. A tied head has none of its own."""
        return sum(p.numel() for p in self.parameters()) + sum(math.prod(m.shape) for m in matrices(self))

    def state_dict(self, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Return the parameters by name, see `nn.Module.state_dict`. Raises QuantizationError for a quantized model."""
        refuse_quantized(self, "the state of a model")
        return super().state_dict(prefix, keep_vars)


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


# Of each model that is in `eval_mode` now: how many blocks there are, and the modes to restore after the last one.
_evaluated: dict[nn.Module, tuple[int, list[tuple[nn.Module, bool]]]] = {}
_evaluated_lock = Lock()


class eval_mode:
    """Context manager for evaluation mode under no_grad; afterwards every module has the mode that it had before.

    It can be entered again after it was left, which saves the search for the modules. The last one of several blocks
    of a model that overlap restores the modes, because threads may share a model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.modules = model, list(model.modules())
        self.no_grad = tl.no_grad()

    def __enter__(self) -> None:
        with _evaluated_lock:
            count, modes = _evaluated.get(self.model, (0, []))
            _evaluated[self.model] = count + 1, modes or [(module, module.training) for module in self.modules]
            for module in self.modules:
                if module.training:
                    module.training = False
        self.no_grad.__enter__()

    def __exit__(self, *exc: object) -> None:
        self.no_grad.__exit__(*exc)
        with _evaluated_lock:
            count, modes = _evaluated.pop(self.model)
            if count > 1:
                _evaluated[self.model] = count - 1, modes
                return
            for module, mode in modes:
                if module.training != mode:
                    module.training = mode
