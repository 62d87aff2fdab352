"""Record the gradients, the updates and the activations of each layer while a model trains.

A step of `train.log_layers` writes one JSON object as a line of `layers.jsonl`, in which the names are those of the
modules, such as `h.0.attn` for attention and the norm before it:

    {"step": 50, "gradient": {"wte": 0.2, "h.0.attn": 0.1}, "update": {...}, "mean": {"h.0": 0.0}, "std": {...}}

gradient: the L2 norm of the gradient, before clipping. update: the norm of the change of the weights, as a share of the
norm of the weights. mean, std: of the residual stream before the first block, `embedding`, and after each block, in the
last batch of the step. A value that is not finite is null.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorlite as tl
from gpt.config import Config
from gpt.model import GPT
from gpt.runs import RunFolder
from tensorlite import Tensor

# The update is measured on this many weights of a parameter at most, evenly spread, so that it takes little memory.
SAMPLE = 1 << 16


class LayerRecorder:
    """What writes a line of `layers.jsonl` for some of the steps of a run."""

    def __init__(self, config: Config, model: GPT, folder: RunFolder) -> None:
        self.interval, self.steps = config.train.log_layers, config.train.steps
        self.model, self.folder = model, folder
        self.groups: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.groups.setdefault(group_of(name), []).append(parameter)
        self.activations: dict[str, tuple[Tensor, Tensor]] = {}
        self.gradients: dict[str, Tensor] = {}
        self.before: dict[str, list[Tensor]] = {}
        self.measured: list[tuple[int, list[str], Tensor]] = []

    def is_due(self, step: int) -> bool:
        """Return whether a step is recorded: the first one, the last one, and those between at the interval."""
        return self.interval > 0 and (step in (1, self.steps) or step % self.interval == 0)

    @contextmanager
    def watching(self, due: bool) -> Iterator[None]:
        """Context manager in which the model's forward passes are measured, if the step is due."""
        if not due:
            yield
            return
        blocks = list(self.model.h)
        handles = [blocks[0].register_forward_pre_hook(lambda block, args: self.measure("embedding", args[0]))]
        for i, block in enumerate(blocks):
            handles.append(block.register_forward_hook(lambda block, args, x, i=i: self.measure(f"h.{i}", x)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def measure(self, name: str, x: Tensor) -> None:
        """Keep the mean and the standard deviation of an activation."""
        x = x.detach()
        self.activations[name] = x.mean(), x.std(correction=0)

    def before_update(self) -> None:
        """Measure the gradients, before they are clipped, and keep a sample of the weights."""
        for name, parameters in self.groups.items():
            self.gradients[name] = norm([p.grad.detach() for p in parameters if p.grad is not None], self.model.device)
            self.before[name] = [sample(p).clone() for p in parameters]

    def after_update(self, step: int) -> None:
        """Measure the update of a step. Its numbers stay on the device until `flush`, so that no step waits for it."""
        changes, weights = [], []
        for name, parameters in self.groups.items():
            before = self.before[name]
            changes.append(norm([sample(p) - old for p, old in zip(parameters, before, strict=True)]))
            weights.append(norm(before))
        means, stds = zip(*self.activations.values())
        numbers = tl.stack([*self.gradients.values(), *changes, *weights, *means, *stds])
        self.measured.append((step, list(self.activations), numbers))
        self.activations, self.gradients, self.before = {}, {}, {}

    def flush(self) -> None:
        """Write the lines of the steps that were measured. Raises RunFolderError."""
        groups = list(self.groups)
        for step, places, numbers in self.measured:
            values = iter(numbers.cpu().numpy().tolist())
            gradient, change, whole = ({name: next(values) for name in groups} for _ in range(3))
            mean, std = ({place: next(values) for place in places} for _ in range(2))
            self.folder.layer_records.write(
                step=step,
                gradient={name: finite(value) for name, value in gradient.items()},
                update={name: share(change[name], whole[name]) for name in groups},
                mean={place: finite(value) for place, value in mean.items()},
                std={place: finite(value) for place, value in std.items()},
            )
        self.measured.clear()


def group_of(name: str) -> str:
    """Return the group of a parameter: attention or MLP of a block, with the norm before it, or another module."""
    parts = name.split(".")
    if parts[0] != "h":
        return parts[0]
    return ".".join([*parts[:2], {"ln_1": "attn", "ln_2": "mlp"}.get(parts[2], parts[2])])


def sample(parameter: Tensor) -> Tensor:
    """Return at most SAMPLE entries of a parameter, evenly spread, in one dimension."""
    flat = parameter.detach().reshape(-1)
    return flat[:: -(-flat.numel() // SAMPLE)]


def norm(tensors: list[Tensor], device: tl.Device | None = None) -> Tensor:
    """Return the L2 norm of all entries of tensors together, 0-d. device: for the zero of no tensors."""
    if not tensors:
        return tl.zeros((), device=device)
    return tl.stack([tl.linalg.vector_norm(tensor) for tensor in tensors]).square().sum().sqrt()


def share(change: float, whole: float) -> float | None:
    """Return a norm as a share of another one, None if that is zero or the share is not finite."""
    return finite(change / whole) if whole else None


def finite(value: Any) -> float | None:
    """Return a number as a float, None if it is not finite."""
    return float(value) if math.isfinite(value) else None
