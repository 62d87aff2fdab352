"""A short training run of a small GPT, the same on every device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer
from tensorlite import nn, optim
from tests.support.devices import numpy

MODEL = ModelConfig(vocab_size=16, block_size=8, n_layer=2, n_head=2, n_embd=32, bias=True)
OPTIM = OptimConfig(lr=1e-2, min_lr=1e-3, warmup_steps=5)
STEPS = 40


def batches(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield inputs and targets (8, T) of sequences in which each token is one or two larger than the last."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        ids = rng.integers(0, MODEL.vocab_size, (8, MODEL.block_size + 1))
        for t in range(1, ids.shape[1]):
            ids[:, t] = (ids[:, t - 1] + rng.integers(1, 3, 8)) % MODEL.vocab_size
        yield ids[:, :-1], ids[:, 1:]


@dataclass
class Run:
    """A small GPT in training on one device."""

    model: GPT
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.CosineWithWarmup
    device: tl.Device

    @classmethod
    def start(cls, device: tl.Device, config: ModelConfig = MODEL) -> "Run":
        """Return a new run, with the same initial weights on every device."""
        default = tl.get_default_device()
        try:
            tl.set_default_device("cpu")
            tl.manual_seed(0)
            model = GPT(config)
        finally:
            tl.set_default_device(default)
        model.to(device)
        optimizer = configure_optimizer(model, OPTIM)
        schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, OPTIM.warmup_steps, STEPS, OPTIM.min_lr)
        return cls(model, optimizer, schedule, device)

    def train(self, data: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[tl.Tensor]:
        """Take a step on each batch. Return the losses, 0-d, on the device of the model."""
        losses = []
        for x, y in data:
            self.optimizer.zero_grad()
            _, loss = self.model(tl.tensor(x, device=self.device), tl.tensor(y, device=self.device))
            assert loss is not None
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), OPTIM.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.detach())
        return losses


def curve(losses: Sequence[tl.Tensor]) -> list[np.ndarray]:
    """Return the losses on the host."""
    return [numpy(loss) for loss in losses]
