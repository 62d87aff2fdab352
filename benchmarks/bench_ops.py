"""What an op costs: beside its arithmetic, on arrays so small that nothing else counts; and on large ones.

    python benchmarks/bench_ops.py

The first table is of chains of one op on 4x4 float32 arrays, x = f(x, y) again and again; microseconds an op, above
what NumPy's function alone takes:
    forward    the chain under no_grad
    recorded   the chain recorded for the backward pass, and freed
    backward   the gradients of its result, of a given cotangent, for its inputs
PyTorch and HIPS autograd are measured too where they are installed. The sides take turns, and of each the fastest of
several runs counts: what disturbs a run only ever makes it slower. op_throughput.py describes the second table.
"""

import argparse
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import op_throughput
from environment import described, saved

import tensorlite as tl

# NumPy's name of each op, its name in PyTorch and tensorlite, and its number of inputs.
OPS = {"add": ("add", 2), "multiply": ("mul", 2), "sin": ("sin", 1), "tanh": ("tanh", 1), "matmul": ("matmul", 2)}
KINDS = ("forward", "recorded", "backward")
LENGTH = 100

Timer = Callable[[int], float]
"""Seconds that so many runs of a chain take."""


def inputs(op: str) -> list[np.ndarray]:
    """x, and a y that keeps the numbers in range however long the chain."""
    rng = np.random.default_rng(0)
    x = rng.random((4, 4))
    y = np.linalg.qr(rng.random((4, 4)))[0] if op == "matmul" else 1 + 0.01 * rng.random((4, 4))
    return [a.astype(np.float32) for a in (x, y)[: OPS[op][1]]]


def chain(f: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, *y: Any) -> Any:
        for _ in range(LENGTH):
            x = f(x, *y)
        return x

    return run


def timer(call: Callable[..., Any], *args: Any) -> Timer:
    return lambda number: timeit.timeit(lambda: call(*args), number=number)


def numpy_timer(op: str) -> Timer:
    return timer(chain(getattr(np, op)), *inputs(op))


def like_torch(library: Any, op: str) -> dict[str, Timer]:
    """tensorlite or PyTorch: a user writes the same for both."""
    f = chain(getattr(library, OPS[op][0]))
    leaves = [library.tensor(a, requires_grad=True) for a in inputs(op)]
    out = f(*leaves)
    cotangent = library.ones_like(out)
    recorded = timer(f, *leaves)

    def forward(number: int) -> float:
        with library.no_grad():
            return recorded(number)

    def gradients() -> None:
        library.autograd.grad(out, leaves, cotangent, retain_graph=True)

    return {"forward": forward, "recorded": recorded, "backward": timer(gradients)}


def tensorlite_timers(op: str) -> dict[str, Timer]:
    return like_torch(tl, op)


def torch_timers(op: str) -> dict[str, Timer]:
    import torch

    return like_torch(torch, op)


def autograd_timers(op: str) -> dict[str, Timer]:
    import autograd
    import autograd.numpy as anp

    f, args = chain(getattr(anp, op)), tuple(inputs(op))
    record = autograd.make_vjp(lambda xs: f(*xs))
    pull, out = record(args)
    return {"forward": timer(f, *args), "recorded": timer(record, args), "backward": timer(pull, np.ones_like(out))}


LIBRARIES = {"tensorlite": tensorlite_timers, "torch": torch_timers, "autograd": autograd_timers}


def installed() -> Iterator[str]:
    for name, timers in LIBRARIES.items():
        try:
            timers("add")
        except ImportError:
            continue
        yield name


def fastest(timers: dict[Any, Timer], number: int, repeats: int) -> dict[Any, float]:
    """Microseconds an op, the least over the repeats; in each repeat all sides have their turn."""
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(repeats):
        for key, seconds in timers.items():
            best[key] = min(best[key], seconds(number) / (number * LENGTH) * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=50, help="chains in a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="runs (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the tables to benchmarks/results, too")
    args = parser.parse_args()
    with saved("ops", args.save):
        compare(args.number, args.repeats)
        op_throughput.compare(-(-args.repeats // 3))


def compare(number: int, repeats: int) -> None:
    """Prints the first table."""
    print(described("torch", "autograd", "numba"))
    names = list(installed())
    columns = [(name, kind) for name in names for kind in KINDS]
    print(f"\n4x4 float32, microseconds an op above NumPy's: {repeats} runs of {number} chains of {LENGTH}\n")
    print(f"{'':20}" + "".join(f"{name:^30}" for name in names))
    print(f"{'op':10}{'NumPy':>10}" + "".join(f"{kind:>10}" for _, kind in columns))
    for op in OPS:
        timers = {"NumPy": numpy_timer(op)}
        timers |= {(name, kind): seconds for name in names for kind, seconds in LIBRARIES[name](op).items()}
        best = fastest(timers, number, repeats)
        above = [best[column] - best["NumPy"] for column in columns]
        print(f"{op:10}{best['NumPy']:10.2f}" + "".join(f"{microseconds:10.2f}" for microseconds in above))


if __name__ == "__main__":
    main()
