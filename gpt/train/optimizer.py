"""Make the optimizer of a model."""

import pkgutil

from gpt.config import OPTIMIZERS, OptimConfig
from gpt.model import GPT
from tensorlite import optim


def configure_optimizer(model: GPT, config: OptimConfig) -> optim.Optimizer:
    """Return the optimizer `config.optimizer` for the parameters of a model; see `gpt.config.OPTIMIZERS`."""
    optimizer: optim.Optimizer = pkgutil.resolve_name(OPTIMIZERS[config.optimizer])(model, config)
    return optimizer


def adamw(model: GPT, config: OptimConfig) -> optim.Optimizer:
    """Return AdamW that decays matrices (embeddings too), but neither biases nor the gains of the norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]  # Low-rank matrices alone leave no vectors.
    return optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def muon(model: GPT, config: OptimConfig) -> optim.Optimizer:
    """Return Muon, with its own learning rate, for the matrices in the blocks, and AdamW without decay for the rest."""
    inner = [p for p in model.h.parameters() if p.ndim >= 2 and p.requires_grad]
    updated = set(inner)
    outer = [p for p in model.parameters() if p not in updated and p.requires_grad]
    parts: list[optim.Optimizer] = []
    if inner:
        parts.append(optim.Muon(inner, lr=config.muon_lr, weight_decay=config.weight_decay))
    if outer:
        parts.append(optim.AdamW(outer, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0))
    return optim.CombinedOptimizer(*parts)
