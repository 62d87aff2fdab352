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
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def muon(model: GPT, config: OptimConfig) -> optim.Optimizer:
    """Return Muon, with its own learning rate, for the matrices in the blocks, and AdamW without decay for the rest."""
    inner = [p for p in model.h.parameters() if p.ndim >= 2]
    updated = set(inner)
    outer = [p for p in model.parameters() if p not in updated]
    return optim.CombinedOptimizer(
        optim.Muon(inner, lr=config.muon_lr, weight_decay=config.weight_decay),
        optim.AdamW(outer, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0),
    )
