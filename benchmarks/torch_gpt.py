"""The GPT of gpt/model/gpt.py in PyTorch, as one would write it there: its layers, its fused attention, nothing slow.

The shape is nanoGPT's without biases and dropout: pre-norm blocks, exact GELU, tied head. Parameters have the names of
gpt.model.GPT's, so that one state_dict fits both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import ModelConfig, OptimConfig


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.c_attn = nn.Linear(C, 3 * C, bias=False)
        self.c_proj = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))
        if cache is not None:  # keys and values (2, B, H, block_size, D), filled before `start`
            cache[0, :, :, start : start + T] = k
            cache[1, :, :, start : start + T] = v
            k, v = cache[:, :, :, : start + T]
        # With a cache, several tokens come only at the start, and a single token attends to all positions.
        y = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)  # (B, H, T, D)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Attention and MLP, each with a layer norm before it and a residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=False)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=False)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: Tensor | None = None, start: int = 0) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, start)
        return x + self.mlp(self.ln_2(x))


class TorchGPT(nn.Module):
    """The model. It takes ids and targets (B, T), int64, and returns the mean cross-entropy in nats a token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, bias=False)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe.weight[: idx.shape[1]]  # (B, T, C)
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    def new_cache(self, batch_size: int = 1) -> Tensor:
        """Return a cache for the keys and values of a whole context: (n_layer, 2, B, H, block_size, D)."""
        c = self.config
        return torch.zeros(c.n_layer, 2, batch_size, c.n_head, c.block_size, c.n_embd // c.n_head)

    def next_logits(self, idx: Tensor, cache: Tensor, start: int) -> Tensor:
        """Return the logits (B, V) of the token after idx (B, T).

        The tokens in `idx` have the positions from `start` on; the cache holds the keys and values before them.
        """
        x = self.wte(idx) + self.wpe.weight[start : start + idx.shape[1]]  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, cache[layer], start)
        return F.linear(self.ln_f(x[:, -1]), self.wte.weight)

    def configure_optimizer(self, config: OptimConfig) -> torch.optim.AdamW:
        """Return PyTorch's AdamW with its defaults and weight decay for matrices only."""
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
