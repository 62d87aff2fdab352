"""How long ops on large arrays take: tensorlite against PyTorch and plain NumPy; the second table of bench_ops.py.

The arrays are the activations of the model of `make train`. Forward is under no_grad; both is forward and backward,
from the gradient of the result to those of all inputs. Each library has a process of its own, and they take turns.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from processes import started

B, H, T, C, V = 12, 4, 64, 128, 65  # batch, heads, context, width, vocabulary


def arrays() -> dict[str, list[np.ndarray]]:
    """The floating point inputs of each op."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "add": [normal(B, T, C), normal(B, T, C)],
        "tanh": [normal(B, T, 4 * C)],
        "gelu": [normal(B, T, 4 * C)],
        "softmax": [normal(B, H, T, T)],
        "layer_norm": [normal(B, T, C), normal(C), normal(C)],
        "linear": [normal(B, T, C), normal(4 * C, C)],
        "attention": [normal(B, H, T, C // H) for _ in range(3)],
        "cross_entropy": [normal(B * T, V)],
        "embedding": [normal(V, C)],
    }


PAUSE, WARMUP, CALLS = 0.05, 0.05, 50  # of a turn: seconds asleep, seconds to warm up, and calls that are timed

IDS = np.random.default_rng(1).integers(0, V, B * T)


def functional(library: Any) -> dict[str, Callable[..., Any]]:
    """tensorlite or PyTorch: a user writes the same for both."""
    F, ids = import_module(f"{library.__name__}.nn.functional"), library.from_numpy(IDS)
    return {
        "add": lambda x, y: x + y,
        "tanh": library.tanh,
        "gelu": F.gelu,
        "softmax": lambda x: F.softmax(x, dim=-1),
        "layer_norm": lambda x, weight, bias: F.layer_norm(x, (C,), weight, bias),
        "linear": F.linear,
        "attention": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "cross_entropy": lambda x: F.cross_entropy(x, ids),
        "embedding": lambda x: F.embedding(ids, x),
    }


def plain() -> dict[str, Callable[..., Any]]:
    """The same as one writes it in NumPy; without GELU, for which NumPy has no error function."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1]))
        return softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf).astype(np.float32)) @ v

    def cross_entropy(x: np.ndarray) -> np.ndarray:
        x = x - x.max(-1, keepdims=True)
        return (np.log(np.exp(x).sum(-1)) - x[np.arange(len(x)), IDS]).mean()

    return {
        "add": np.add, "tanh": np.tanh, "softmax": softmax, "layer_norm": layer_norm,
        "linear": lambda x, weight: x @ weight.T, "attention": attention, "cross_entropy": cross_entropy,
        "embedding": lambda x: x[IDS],
    }  # fmt: skip


def calls(side: str) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed, by op and by kind."""
    if side == "NumPy":
        return {(op, "forward"): partial(f, *arrays()[op]) for op, f in plain().items()}
    library = import_module(side)
    result: dict[tuple[str, str], Callable[[], Any]] = {}
    for op, f in functional(library).items():
        leaves = [library.from_numpy(a).requires_grad_() for a in arrays()[op]]
        g = library.ones_like(f(*leaves))

        def forward(f: Any = f, leaves: Any = leaves) -> None:
            with library.no_grad():
                f(*leaves)

        def both(f: Any = f, leaves: Any = leaves, g: Any = g) -> None:
            library.autograd.grad(f(*leaves), leaves, g)

        result |= {(op, "forward"): forward, (op, "both"): both}
    return result


def work(side: str, pipe: Connection) -> None:
    """A side's process: calls what it is asked for, and sends the seconds of each call back.

    Before that it waits until the other sides' threads have stopped to look for work, and then until its own have each
    found a core: the system moves them there within some milliseconds.
    """
    known = calls(side)
    while key := pipe.recv():
        seconds: list[float] = []
        time.sleep(PAUSE)
        start = time.perf_counter()
        while key in known and time.perf_counter() < start + WARMUP:
            known[key]()
        for _ in range(CALLS if key in known else 0):
            start = time.perf_counter()
            known[key]()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds)


def compare(repeats: int) -> None:
    """Prints the table."""
    names = ["NumPy", "tensorlite", *(["torch"] if find_spec("torch") else [])]
    sides = {name: started(name, work) for name in names}
    print(
        f"\nactivations of {B} x {T} tokens, {C} wide, {H} heads, microseconds an op: the median of {CALLS * repeats} "
        f"calls (minimum)\n"
    )
    print(f"{'op':15}{'kind':9}" + "".join(f"{name:>18}" for name in names) + f"{'ratio to torch':>18}")
    for op in arrays():
        for kind in ("forward", "both"):
            times: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(repeats):
                for name in names[:: -1 if turn % 2 else 1]:
                    sides[name][1].send((op, kind))
                    times[name] += sides[name][1].recv()
            cells = [_shown(t) if t else "" for t in times.values()]
            ratio = ""
            if times.get("torch"):
                ours, theirs = times["tensorlite"], times["torch"]
                ratio = f"{statistics.median(ours) / statistics.median(theirs):.2f} ({min(ours) / min(theirs):.2f})"
            print(f"{op:15}{kind:9}" + "".join(f"{cell:>18}" for cell in cells) + f"{ratio:>18}")
    for process, pipe in sides.values():
        pipe.send(None)
        process.join()


def _shown(seconds: list[float]) -> str:
    return f"{1e6 * statistics.median(seconds):.0f} {f'({1e6 * min(seconds):.0f})':>6}"
