"""GPT: a decoder-only transformer with pre-norm blocks. By default it has the shapes and initial values of GPT-2.

    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + attention(norm(x));  x = x + mlp(norm(x))         n_layer times
    logits = norm(x) @ (token embedding)^T                    (B, T, V)

The options of `ModelConfig` make other families out of it, such as Llama: rotary positions instead of the position
embedding, RMSNorm, SwiGLU, fewer heads of keys and values than of queries, and a head with weights of its own.

In the shape comments B is the batch, T the sequence (at most block_size), C the width n_embd, and V the vocabulary.
With a cache, T counts the new tokens only. The blocks are in `gpt/model/blocks.py`.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners"; Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models".
"""

import math
from threading import Lock
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import Config, ModelConfig
from gpt.model.blocks import Block, build_norm, init_parameters
from gpt.model.cache import KVCache
from gpt.model.packed import PackedDocuments
from gpt.model.quantized import QuantizedEmbedding, matrices, refuse_quantized
from gpt.model.rotary import RotaryTable
from gpt.model.window import WindowMask
from tensorlite import Tensor, nn


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
        init_parameters(self.named_parameters(), self.config, projections=2 * self.config.n_layer)

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


def check_model_config(config: object, name: str = "GPT") -> None:
    """Raise TypeError, with what to write, unless `config` is a ModelConfig. name: the class that it is for."""
    if not isinstance(config, ModelConfig):
        write = {
            str: f"{name}(Config.load({config!r:.40}).model), for a preset or a TOML file",
            Config: f"{name}(config.model)",
            dict: f"{name}(ModelConfig(**values))",
        }.get(type(config), f"{name}(Config.load('gpt-nano').model)")
        trained = "; gpt.checkpoint.load(path).model is a trained one" if name == "GPT" else ""
        raise TypeError(
            f"{name}: expected a ModelConfig, got {type(config).__name__} {config!r:.60}. Write {write}{trained}"
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
