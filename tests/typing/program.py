"""A user's program: a model of two layers, a training loop, an op and a module of one's own, and a checkpoint.

This file never runs: tests/typing/test_type_checkers.py gives it to the type checkers, which must find no error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import Tensor, nn


@tl.op(lambda g, x, slope: g * tl.where(x > 0, 1.0, slope))
def leaky(xp: Any, x: Any, slope: float = 0.1) -> Any:
    """Compute a leaky ReLU, on raw arrays."""
    return xp.where(x > 0, x, x * slope)


class Residual(nn.Module):
    """A layer with a shortcut around it, scaled by a parameter."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.strength = nn.Parameter(tl.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(leaky(self.linear(self.norm(x)), slope=0.05))
        return x + self.strength * y


class Classifier(nn.Module):
    """An MLP for two classes."""

    def __init__(self, features: int, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.blocks = nn.ModuleList([Residual(width, 0.1) for _ in range(depth)])
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = F.gelu(self.embed(x), approximate="tanh")
        for block in self.blocks:
            x = block(x)
        logits = self.head(x)
        return logits, None if targets is None else F.cross_entropy(logits, targets)


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = tl.randperm(len(x))
    for start in range(0, len(x), size):
        rows = order[start : start + size]
        yield x[rows], y[rows]


@tl.no_grad()
def accuracy(model: Classifier, x: Tensor, y: Tensor) -> float:
    model.eval()
    logits, _ = model(x)
    confidence, predicted = logits.softmax(dim=-1).max(dim=-1)
    certain = predicted[confidence > 0.9]
    model.train()
    print(f"{certain.numel()} of {len(x)} are certain")
    return float((predicted == y).float().mean())


def train(path: Path, steps: int = 10) -> list[float]:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((256, 2)).astype(np.float32)
    x = tl.from_numpy(points)
    y = (x.norm(dim=1) > 1.0).long()
    x[:, 0] -= x[:, 0].mean()
    x /= x.std(dim=0, keepdim=True)

    model = Classifier(features=2)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = tl.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.95)
    )
    schedule = tl.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    losses: list[float] = []
    for _ in range(steps):
        for inputs, targets in batches(x, y, 64):
            _, loss = model(inputs, targets)
            assert loss is not None
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
    weight = model.embed.weight
    if weight.grad is not None:
        print("gradient", weight.grad.abs().max().item(), "of", tuple(weight.shape), weight.dtype)

    tl.save(model.state_dict(), path)
    restored = Classifier(features=2)
    restored.load_state_dict(tl.load(path))
    with tl.no_grad():
        for p, q in zip(model.parameters(), restored.parameters(), strict=True):
            assert tl.allclose(p, q)
            q.mul_(0.5).clamp_(-1, 1)
    print(accuracy(restored, x, y))
    return losses
