"""GPT: a decoder-only transformer with pre-norm blocks and a tied head, shaped and initialised as GPT-2.

    x = dropout(token embedding + position embedding)         (B, T, C)
    x = x + attention(norm(x));  x = x + mlp(norm(x))         n_layer times
    logits = norm(x) @ (token embedding)^T                    (B, T, V)

In the shape comments B is the batch, T the sequence (at most block_size), C the width n_embd, H the heads, D = C / H
the width of a head, and V the vocabulary. With a cache, T counts the new tokens alone, and S those before them, too.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners".
"""

import math

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig, OptimConfig
from tensorlite import Tensor, nn, optim


class KeyValueCache:
    """The keys and values of the tokens that a model has read, so that those after them need not compute them again.

    model: the model that reads with it, under no_grad; dtype and device are the model's. Whoever changes its weights
        sets `length` to 0: what is held came from the old ones.
    batch_size: how many sequences are read side by side, all of one length.
    """

    length: int
    """Positions that are filled. 0 forgets all of them, a smaller number the last ones."""

    def __init__(self, model: "GPT", batch_size: int = 1) -> None:
        config, weight = model.config, model.wte.weight
        shape = (batch_size, config.n_head, config.block_size, config.n_embd // config.n_head)  # (B, H, block_size, D)
        layers = range(config.n_layer)
        self.batch_size, self.block_size, self.length = batch_size, config.block_size, 0
        self.keys = [tl.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in layers]
        self.values = [tl.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in layers]

    def require(self, B: int, T: int) -> None:
        """Raises ValueError unless (B, T) new tokens fit behind those that are held."""
        if B != self.batch_size:
            raise ValueError(f"GPT: a batch of {B} sequences, and a cache for {self.batch_size}; make one for {B}")
        if self.length + T > self.block_size:
            raise ValueError(
                f"GPT: a cache of block_size = {self.block_size} positions holds {self.length}, which leaves no room "
                f"for {T} more; set its length to 0 and read the last tokens again, fewer of them"
            )

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Puts a layer's keys and values (B, H, T, D) of T new tokens behind the others. All: (B, H, length + T, D)."""
        stop = self.length + k.shape[2]  # the length itself grows when all layers are done
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : stop] = k
        values[:, :, self.length : stop] = v
        return keys[:, :, :stop], values[:, :, :stop]


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which position t sees positions 0 to t (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)  # queries, keys and values in one matmul
        self.c_proj = nn.Linear(C, C, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        B, T, C = x.shape
        H, D = self.n_head, C // self.n_head
        heads = self.c_attn(x).view(B, T, 3 * H, D).transpose(1, 2)  # (B, 3H, T, D)
        q, k, v = heads.split(H, dim=1)  # (B, H, T, D) each
        mask = None
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # (B, H, S, D): also of the S - T tokens before
            S = k.shape[2]
            if 1 < T < S:  # query t sees S - T keys more than the 0 to t that is_causal would show it
                mask = tl.arange(S, device=x.device) <= tl.arange(S - T, S, device=x.device)[:, None]  # (T, S)
        dropout = self.dropout if self.training else 0.0
        causal = k.shape[2] == T
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers, four times as wide between them, with a GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
        self.c_proj = nn.Linear(4 * C, C, bias=config.bias)
        self.approximate = {"erf": "none", "tanh": "tanh"}[config.gelu]
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), self.approximate)  # (B, T, 4C)
        return self.dropout(self.c_proj(x))  # (B, T, C)


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each; both add to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, layer)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The language model. Its parameters have GPT-2's names, and Linear's (out, in) for the shape of a matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
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

    def init_weights(self) -> None:
        """Draws all weights as GPT-2 does: N(0, 0.02^2), and zero for biases.

        The two projections of a block that add to the residual stream get 0.02 / sqrt(2 n_layer), so that the
        variance of the sum of all 2 n_layer does not grow with depth.
        """
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim >= 2:
                nn.init.normal_(parameter, 0.0, residual if name.endswith("c_proj.weight") else 0.02)

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V) for token ids (B, T), int64, and the mean cross-entropy in nats a token.

        logits[:, t] predicts the token after idx[:, t]. targets: (B, T), int64, -1 where a position does not count;
        without them the loss is None. cache: what `features` says. Raises ValueError if T exceeds block_size,
        IndexError for an id outside the vocabulary.
        """
        logits = self.head(self.features(idx, cache))  # (B, T, V)
        if targets is None:
            return logits, None
        V = logits.shape[-1]
        return logits, F.cross_entropy(logits.view(-1, V), targets.reshape(-1), ignore_index=-1)

    def features(self, idx: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """The final norm's output (B, T, C) for token ids (B, T): what the head turns into logits.

        With a cache, idx are the tokens after those that it holds, and it then holds them, too. Raises ValueError if
        they do not fit, GraphError if gradients would be recorded.
        """
        if idx.ndim != 2:
            raise ValueError(f"GPT: expected token ids of shape (B, T), got {tuple(idx.shape)}")
        B, T = idx.shape
        block_size, start = self.config.block_size, 0  # start: the position of idx[:, 0]
        if T > block_size:
            raise ValueError(f"GPT: {T} tokens do not fit the context of block_size = {block_size}; crop them")
        if cache is not None:
            if tl.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
                raise tl.GraphError("GPT: a cache is for reading without gradients; call the model under no_grad()")
            cache.require(B, T)
            start = cache.length
        x = self.wte(idx)  # (B, T, C)
        if self.config.position == "learned":
            x = x + self.wpe.weight[start : start + T]  # (T, C), the same for every sequence
        else:
            positions = self.sinusoids[start : start + T].to(x.dtype)
            x = x * math.sqrt(self.config.n_embd) + positions  # scaled as in Vaswani, 3.4
        x = self.drop(x)
        for layer, block in enumerate(self.h):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of features (..., C): their products with the token embeddings, which the head shares."""
        return F.linear(x, self.wte.weight)

    def num_params(self) -> int:
        """The number of parameters; the head has none of its own. 124,439,808 for GPT-2."""
        return sum(p.numel() for p in self.parameters())

    def configure_optimizer(self, config: OptimConfig) -> optim.Optimizer:
        """AdamW that decays matrices (embeddings too), and neither biases nor the gains of the norms.

        With config.optimizer = "muon" the matrices inside the blocks are Muon's, with its own learning rate, and what
        is left is AdamW's, without decay.
        """
        parameters = list(self.parameters())
        if config.optimizer == "muon":
            inner = [p for p in self.h.parameters() if p.ndim >= 2]
            ours = set(inner)
            outer = [p for p in parameters if p not in ours]
            return optim.CombinedOptimizer(
                optim.Muon(inner, lr=config.muon_lr, weight_decay=config.weight_decay),
                optim.AdamW(outer, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0),
            )
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def sinusoids(length: int, width: int) -> np.ndarray:
    """Position embeddings (length, width), float64, with wavelengths from 2 pi to 20,000 pi (Vaswani et al., 3.5).

    PE[t, 2i] = sin(t / 10000^(2i / width)) and PE[t, 2i + 1] = cos of the same.
    """
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)  # (length, width / 2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


class inference:
    """Evaluation mode without recording, for a `with` block; afterwards every module is in the mode it was in.

    It may be entered again after it was left, which saves looking for the modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self.modes: list[bool] = []
        self.no_grad = tl.no_grad()

    def __enter__(self) -> None:
        self.modes = [module.training for module in self.modules]
        self.switch([False] * len(self.modules))
        self.no_grad.__enter__()

    def __exit__(self, *exc: object) -> None:
        self.no_grad.__exit__(*exc)
        self.switch(self.modes)

    def switch(self, modes: list[bool]) -> None:
        """Puts each module in its mode."""
        for module, mode in zip(self.modules, modes, strict=True):
            if module.training != mode:
                module.training = mode
