"""Measure ops on large arrays: tensorlite against PyTorch and plain NumPy; the second table of bench_ops.py.

The arrays are the activations of the model of `make train`. The kind "forward" is under no_grad. The kind "both" is
forward and backward, from the gradient of the result to the gradients of all inputs. Each library has a process of its
own, and they alternate in short blocks.

Each row has the rates of its medians: in GFLOP/s and percent of the peak of a matrix product where an op is made of
products, else in GB/s and percent of the memory bandwidth. The bytes are those of each input and output, read or
written once. The arrays fit in a large cache, so there a rate can be above 100% of the memory's.
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
from disturbance import Disturbance
from hardware import Limits
from processes import in_turn, start_process
from ratios import Blocks, flatten, ratio

B, H, T, C, V = 12, 4, 64, 128, 65  # batch, heads, context, width, vocabulary


def arrays() -> dict[str, list[np.ndarray]]:
    """Return the floating point inputs of each op."""
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
        "sigmoid": [normal(B, T, 4 * C)],
        "gather": [normal(B * T, V)],
        "index_add": [normal(V, C), normal(B * T, C)],
        "max_pool2d": [normal(B, H, T, T)],
    }


PAUSE, WARMUP, CALLS = 0.05, 0.05, 50  # of a block: seconds asleep, seconds to warm up, and timed calls

IDS = np.random.default_rng(1).integers(0, V, B * T)
PLACES = np.random.default_rng(2).integers(0, V, (B * T, V))


def functional(library: Any) -> dict[str, Callable[..., Any]]:
    """Return the ops of tensorlite or PyTorch, for which a user writes the same code."""
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
        "sigmoid": library.sigmoid,
        "gather": lambda x: x.gather(1, library.from_numpy(PLACES)),
        "index_add": lambda x, y: x.index_add(0, ids, y),
        "max_pool2d": lambda x: F.max_pool2d(x, 2),
    }


def plain() -> dict[str, Callable[..., Any]]:
    """Return most of the same ops in plain NumPy, which has no error function for GELU, and no fast ``index_add``."""

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
        "embedding": lambda x: x[IDS], "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "gather": lambda x: np.take_along_axis(x, PLACES, 1),
        "max_pool2d": lambda x: x.reshape(B, H, T // 2, 2, T // 2, 2).max((3, 5)),
    }  # fmt: skip


def calls(side: str) -> dict[tuple[str, str], Callable[[], Any]]:
    """Return the calls of one library by op and kind."""
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


# Operations of a forward pass; a backward pass has twice as many. Attention counts the pairs that its mask leaves.
FLOPS = {"linear": 2 * B * T * C * 4 * C, "attention": 2 * B * T * (T + 1) * C}


def count_bytes(op: str, kind: str) -> int:
    """Return the bytes of each input and output of an op; with backward, also those of each gradient."""
    inputs = sum(a.nbytes for a in arrays()[op])
    if op == "embedding":
        inputs = 4 * B * T * C  # the rows that are read
    outputs = {"cross_entropy": 4, "embedding": 4 * B * T * C, "max_pool2d": B * H * T * T}
    output = outputs.get(op, arrays()[op][0].nbytes)
    # A backward pass reads the inputs and the gradient of the output, and writes the gradients of the inputs.
    return inputs + output if kind == "forward" else 3 * inputs + 2 * output


def rates(limits: Limits, op: str, kind: str, seconds: float) -> tuple[float, float]:
    """Return an op's rate in GFLOP/s or GB/s, and in percent of the limit that applies to it."""
    if op in FLOPS:
        flops = FLOPS[op] * (1 if kind == "forward" else 3)
        return flops / seconds / 1e9, limits.percent_of_peak(flops, seconds)
    size = count_bytes(op, kind)
    return size / seconds / 1e9, limits.percent_of_bandwidth(size, seconds)


def time_ops(side: str, timed: int, pipe: Connection) -> None:
    """Run in a process of its own: for each op and kind received, send the seconds of ``timed`` calls.

    Before that, sleep until the idle threads of the other sides stop spinning. Then warm up, so that the operating
    system can move this side's threads to cores of their own, which takes some milliseconds.
    """
    known = calls(side)
    while key := pipe.recv():
        seconds: list[float] = []
        time.sleep(PAUSE)
        start = time.perf_counter()
        while key in known and time.perf_counter() < start + WARMUP:
            known[key]()
        for _ in range(timed if key in known else 0):
            start = time.perf_counter()
            known[key]()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds)


def format_times(blocks: Blocks) -> str:
    """Return the shortest time and the median, in microseconds."""
    times = flatten(blocks)
    return f"{1e6 * min(times):.0f} {f'({1e6 * statistics.median(times):.0f})':>6}"


def compare(limits: Limits, rounds: int, timed: int = CALLS) -> None:
    """Print the table, from ``rounds`` blocks of ``timed`` calls."""
    names = ["NumPy", "tensorlite", *(["torch"] if find_spec("torch") else [])]
    sides = {name: start_process(name, time_ops, timed) for name in names}
    print(
        f"\nactivations of {B} x {T} tokens, {C} wide, {H} heads, microseconds an op: the minimum (median) of "
        f"{rounds} blocks of {timed} calls, and the ratios of both\n"
    )
    header = "".join(f"{name:>16}" for name in names) + f"{'ratio to torch':>18}  "
    print(f"{'op':15}{'kind':9}{header}" + "".join(f"{name:>11} G/s{'%':>6}" for name in names[1:]) + " of")
    disturbance = Disturbance()
    for op in arrays():
        for kind in ("forward", "both"):
            blocks: dict[str, list[list[float]]] = {name: [] for name in names}
            for number in range(rounds):
                for name in in_turn(names, number):
                    with disturbance:
                        sides[name][1].send((op, kind))
                        blocks[name].append(sides[name][1].recv())
            cells = [f"{format_times(b) if any(b) else '':>16}" for b in blocks.values()]
            if "torch" in names:
                r = ratio(blocks["tensorlite"], blocks["torch"])
                cells.append(f"{r.minimum:9.2f}{r.median:9.2f}")
            else:
                cells.append(f"{'':>18}")
            for name in names[1:]:
                rate, percent = rates(limits, op, kind, statistics.median(flatten(blocks[name])))
                cells.append(f"{rate:15.1f}{percent:6.0f}")
            print(f"{op:15}{kind:9}" + "".join(cells) + (" peak" if op in FLOPS else " memory"))
    print(disturbance.describe())
    for process, pipe in sides.values():
        pipe.send(None)
        process.join()
