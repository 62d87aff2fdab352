"""Make what changes the weights of a model: its optimizer, with the schedule of the learning rate."""

import functools
import json
import pkgutil
from typing import Any

import tensorlite.distributed as dist
from gpt.config import OPTIMIZERS, OptimConfig
from gpt.model import GPT
from tensorlite import optim
from tensorlite.optim import lr_scheduler


def configure_optimizer(model: GPT, config: OptimConfig, group: dist.Group | None = None) -> optim.Optimizer:
    """Return the optimizer `config.optimizer` for the parameters of a model; see `gpt.config.OPTIMIZERS`.

    group: the ranks among which the state is divided, each of which calls this. Without one, or on one rank, it stays
    whole.
    """
    make = pkgutil.resolve_name(OPTIMIZERS[config.optimizer])
    if group is not None and group.size > 1:
        parameters = [p for p in model.parameters() if p.requires_grad]
        return dist.ZeroRedundancyOptimizer(parameters, lambda params: make(model, config), group)
    optimizer: optim.Optimizer = make(model, config)
    return optimizer


def is_sharded(optimizer: optim.Optimizer) -> bool:
    """Return whether each rank keeps the state of its share of the parameters alone."""
    return isinstance(optimizer, dist.ZeroRedundancyOptimizer)


def collect_state(optimizer: optim.Optimizer) -> None:
    """Send the state of a sharded optimizer to rank 0, where `state_dict` is then whole. Every rank calls this."""
    if isinstance(optimizer, dist.ZeroRedundancyOptimizer):
        optimizer.consolidate_state_dict(to=0)


def saved_options(optimizer: optim.Optimizer) -> list[dict[str, Any]]:
    """Return the options of the groups of parameters as a checkpoint has them, also on a rank with a share alone."""
    whole = optimizer.optim if isinstance(optimizer, dist.ZeroRedundancyOptimizer) else optimizer
    groups: list[dict[str, Any]] = json.loads(json.dumps(whole.state_dict()["param_groups"]))
    return groups


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
        parts.append(optim.Muon(inner, config.muon_lr, config.weight_decay, config.muon_momentum))
    if outer:
        parts.append(optim.AdamW(outer, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0))
    return optim.CombinedOptimizer(*parts)


def configure_schedule(
    optimizer: optim.Optimizer, config: OptimConfig, steps: int, done: int = 0
) -> lr_scheduler.LRScheduler:
    """Return the schedule `config.schedule` of the learning rate over a run, in its state after `done` steps."""
    warmup, end = config.warmup_steps, max(steps, config.warmup_steps)
    if config.schedule == "cosine":
        return lr_scheduler.CosineWithWarmup(optimizer, warmup, end, config.min_lr, last_epoch=done - 1)
    if config.schedule == "wsd":
        decay = min(round(config.decay_fraction * steps), end - warmup)
        return lr_scheduler.WarmupStableDecay(
            optimizer, warmup, decay, end, config.min_lr, config.decay_shape, last_epoch=done - 1
        )
    peaks = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    factors = [
        functools.partial(linear_factor, warmup=warmup, end=end, lowest=min(1.0, config.min_lr / peak))
        for peak in peaks
    ]
    return lr_scheduler.LambdaLR(optimizer, factors, last_epoch=done - 1)


def linear_factor(step: int, warmup: int, end: int, lowest: float) -> float:
    """Return the learning rate of a step as a multiple of the peak: up in `warmup` steps, then down to `lowest`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (end - step) / (end - warmup) if step < end else 0.0
    return lowest + (1 - lowest) * left
