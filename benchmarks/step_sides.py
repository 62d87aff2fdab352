"""Train a GPT with each library, in the ways that bench_step.py and bench_load.py compare.

A step is forward, backward, clipping of the gradient and AdamW on the CPU, written as users of each library write it.
A side is a library, whether its compiler is used, and the dtype of its products: float32, or bfloat16 by autocast.
"""

import ctypes
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer

VOCAB_SIZE = 65
OPTIM = OptimConfig(lr=1e-3, weight_decay=0.1, grad_clip=1.0)

Weights = dict[str, np.ndarray]
Step = Callable[[np.ndarray, np.ndarray], float]


class Shape(NamedTuple):
    """A model, its batch, and the steps of a block, which take from a tenth of a second to two seconds."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    steps: int

    def config(self) -> ModelConfig:
        """Return the configuration of the model."""
        return ModelConfig(
            vocab_size=VOCAB_SIZE, block_size=self.block_size, n_layer=self.n_layer, n_head=self.n_head,
            n_embd=self.n_embd, bias=False,
        )  # fmt: skip

    def weights(self) -> Weights:
        """Return the initial weights, which are the same in every call."""
        tl.manual_seed(0)
        return {name: value.numpy() for name, value in GPT(self.config()).state_dict().items()}


SHAPES = {
    "S": Shape(3, 3, 48, 32, 16, 20),
    "M": Shape(4, 4, 128, 64, 12, 10),
    "L": Shape(6, 6, 384, 256, 8, 3),
}
SMALL = Shape(1, 2, 64, 16, 8, 1)  # needs all that a library imports and allocates once


class Side(NamedTuple):
    """A way to train."""

    library: str
    dtype: str
    compiled: bool = False


SIDES = {
    "tensorlite": Side("tensorlite", "float32"),
    "tensorlite-compile": Side("tensorlite", "float32", compiled=True),
    "torch": Side("torch", "float32"),
    "torch-compile": Side("torch", "float32", compiled=True),
    "tensorlite-bf16": Side("tensorlite", "bfloat16"),
    "torch-bf16": Side("torch", "bfloat16"),
    "torch-compile-bf16": Side("torch", "bfloat16", compiled=True),
}


def why_left_out(name: str) -> str:
    """Return why a side cannot be measured here, or an empty string."""
    side = SIDES[name]
    if side.library == "torch" and not find_spec("torch"):
        return "PyTorch is not installed"
    if side.library == "tensorlite" and side.compiled and not hasattr(tl, "compile"):
        return "this tensorlite has no compile"
    if side.library == "torch" and side.compiled and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return "torch.compile needs a C++ compiler, such as g++"
    if name == "tensorlite-bf16":
        if not hasattr(tl, "autocast"):
            return "this tensorlite has no autocast"
        if not find_spec("ml_dtypes"):
            return "the package ml_dtypes is not installed"
    return ""


# ---- a step ---------------------------------------------------------------------------------


def tensorlite_step(config: ModelConfig, weights: Weights, side: Side) -> Step:
    """Return a function that takes a training step with tensorlite and returns the loss."""
    model = GPT(config)
    model.load_state_dict({name: tl.from_numpy(value) for name, value in weights.items()})
    parameters = list(model.parameters())
    optimizer = configure_optimizer(model, OPTIM)
    forward = model if side.dtype == "float32" else tl.autocast("cpu", dtype=getattr(tl, side.dtype))(model.forward)

    def train_step(x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
        _, loss = forward(x, y)
        loss.backward()
        tl.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    run = tl.compile(train_step) if side.compiled else train_step
    return lambda x, y: run(tl.from_numpy(x), tl.from_numpy(y)).item()


def torch_step(config: ModelConfig, weights: Weights, side: Side) -> Step:
    """Return a function that takes a training step with PyTorch and returns the loss."""
    import torch
    from torch_gpt import TorchGPT

    model = TorchGPT(config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    parameters = list(model.parameters())
    optimizer = model.configure_optimizer(OPTIM)
    forward = torch.compile(model) if side.compiled else model
    block = nullcontext if side.dtype == "float32" else lambda: torch.autocast("cpu", dtype=getattr(torch, side.dtype))

    def step(x: np.ndarray, y: np.ndarray) -> float:
        with block():
            loss = forward(torch.from_numpy(x), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


STEPS = {"tensorlite": tensorlite_step, "torch": torch_step}


def make_step(name: str, shape: Shape, weights: Weights | None = None) -> Step:
    """Return a function that takes a training step of a side and returns the loss."""
    side = SIDES[name]
    return STEPS[side.library](shape.config(), shape.weights() if weights is None else weights, side)


def draw_batch(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return random ids and their successors, both (batch, context)."""
    ids = rng.integers(0, VOCAB_SIZE, (shape.batch_size, shape.block_size + 1))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def run_steps(step: Step, shape: Shape, rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Take steps on random batches. Return the seconds and the loss of each."""
    done = []
    for _ in range(count):
        x, y = draw_batch(rng, shape)
        start = time.perf_counter()
        loss = step(x, y)
        done.append((time.perf_counter() - start, loss))
    return done


# ---- memory ---------------------------------------------------------------------------------


def peak_memory() -> float:
    """Return the most memory that this process has used so far, in MiB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


class CompiledMemory:
    """The memory of a step that torch.compile made, without that of the compiler, which works in the same process.

    It begins between two steps, after compilation. The peak since then, less the memory at the beginning, is that of
    the activations and gradients. Weights and two moments of AdamW were there before: three numbers a parameter.
    """

    def __init__(self, weights: Weights) -> None:
        self.state = 3 * sum(value.nbytes for value in weights.values()) / (1 << 20)
        try:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins anew
            self.start = self.read("VmRSS")
        except (OSError, AttributeError, TypeError):
            self.start = float("nan")

    @staticmethod
    def read(field: str) -> float:
        """Return a field of this process's status, in MiB."""
        text = Path("/proc/self/status").read_text("ascii")
        return float(text.partition(f"{field}:")[2].split()[0]) / (1 << 10)

    def peak(self) -> float:
        """Return the memory of the model and its steps, in MiB; NaN where the system does not say."""
        return self.read("VmHWM") - self.start + self.state if self.start == self.start else self.start


def train(library: str, name: str, shape: Shape, weights: Weights, pipe: Connection) -> None:
    """Run in a process of its own: for each number received, take as many steps, and send their times and losses.

    At the end, send how much memory the model took beyond a small model, which needs all imports as well.
    """
    compiles = SIDES[name].library == "torch" and SIDES[name].compiled
    if not compiles:
        rng = np.random.default_rng(0)
        run_steps(make_step(name, SMALL), SMALL, rng, 1)
    before, compiled = peak_memory(), None
    step = make_step(name, shape, weights)
    rng = np.random.default_rng(0)
    while count := pipe.recv():
        pipe.send(run_steps(step, shape, rng, count))
        if compiles and compiled is None:
            compiled = CompiledMemory(weights)
    pipe.send(peak_memory() - before if compiled is None else compiled.peak())


