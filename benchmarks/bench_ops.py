"""Measure what an op costs: on arrays so small that only the overhead counts, and on large arrays.

    python benchmarks/bench_ops.py

The first table is of chains of one op on 4x4 float32 arrays, x = f(x, y) again and again, in microseconds an op:
    forward    the chain under no_grad
    recorded   the chain recorded for the backward pass, and freed
    backward   the gradients of its result, for a given cotangent, with respect to its inputs
The column NumPy is NumPy's function alone. An op on 4x4 arrays is nearly all overhead, so there is no percentage of the
peak here. The libraries share one process, because none of them uses threads for such arrays, and alternate in blocks
of a few milliseconds. PyTorch and HIPS autograd are measured where they are installed. op_throughput.py describes the
second table.
"""

import argparse
import statistics
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import op_throughput
from environment import describe_environment, saved
from hardware import measure_limits
from processes import add_save_or_quick, in_turn
from ratios import ratio

import tensorlite as tl

# NumPy's name of each op, its name in PyTorch and tensorlite, and its number of inputs.
OPS = {"add": ("add", 2), "multiply": ("mul", 2), "sin": ("sin", 1), "tanh": ("tanh", 1), "matmul": ("matmul", 2)}
KINDS = ("forward", "recorded", "backward")
LENGTH = 100  # ops of a chain

Timer = Callable[[int], float]
"""A function that runs a chain a given number of times and returns the seconds."""


def inputs(op: str) -> list[np.ndarray]:
    """Return x, and for a binary op a y that keeps the numbers in range in a chain of any length."""
    rng = np.random.default_rng(0)
    x = rng.random((4, 4))
    y = np.linalg.qr(rng.random((4, 4)))[0] if op == "matmul" else 1 + 0.01 * rng.random((4, 4))
    return [a.astype(np.float32) for a in (x, y)[: OPS[op][1]]]


def chain(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that applies ``f`` to its own result LENGTH times."""

    def run(x: Any, *y: Any) -> Any:
        for _ in range(LENGTH):
            x = f(x, *y)
        return x

    return run


def timer(call: Callable[..., Any], *args: Any) -> Timer:
    """Return the timer of a call."""
    return lambda number: timeit.timeit(lambda: call(*args), number=number)


def numpy_timer(op: str) -> Timer:
    """Return the timer of NumPy's function, without any library around it."""
    return timer(chain(getattr(np, op)), *inputs(op))


def timers_of(library: Any, op: str) -> dict[str, Timer]:
    """Return the timers of tensorlite or PyTorch, for which a user writes the same code."""
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
    """Return tensorlite's timers by kind."""
    return timers_of(tl, op)


def torch_timers(op: str) -> dict[str, Timer]:
    """Return PyTorch's timers by kind."""
    import torch

    return timers_of(torch, op)


def autograd_timers(op: str) -> dict[str, Timer]:
    """Return HIPS autograd's timers by kind."""
    import autograd
    import autograd.numpy as anp

    f, args = chain(getattr(anp, op)), tuple(inputs(op))
    record = autograd.make_vjp(lambda xs: f(*xs))
    vjp, out = record(args)
    return {"forward": timer(f, *args), "recorded": timer(record, args), "backward": timer(vjp, np.ones_like(out))}


LIBRARIES = {"tensorlite": tensorlite_timers, "torch": torch_timers, "autograd": autograd_timers}


def installed() -> Iterator[str]:
    """Yield the names of the libraries that can be imported."""
    for name, timers in LIBRARIES.items():
        try:
            timers("add")
        except ImportError:
            continue
        yield name


def measure(timers: dict[Any, Timer], number: int, rounds: int) -> dict[Any, list[list[float]]]:
    """Return microseconds an op by timer, one block of one time a round. Every timer has a block in each round."""
    blocks: dict[Any, list[list[float]]] = {key: [] for key in timers}
    for i in range(rounds):
        for key in in_turn(timers, i):
            blocks[key].append([timers[key](number) / (number * LENGTH) * 1e6])
    return blocks


def format_times(blocks: list[list[float]]) -> str:
    """Return the shortest time and the median of a row, in microseconds."""
    times = [block[0] for block in blocks]
    return f"{min(times):.2f} {f'({statistics.median(times):.2f})':>8}"


def compare_small(number: int, rounds: int) -> None:
    """Print the first table."""
    names = list(installed())
    print(
        f"\n4x4 float32, microseconds an op: the minimum (median) of {rounds} blocks of {number} chains of {LENGTH}, "
        f"and the ratios of both\n"
    )
    print(f"{'op':10}{'kind':10}{'NumPy':>16}" + "".join(f"{name:>16}" for name in names) + f"{'ratio to torch':>19}")
    for op in OPS:
        timers = {("NumPy", "forward"): numpy_timer(op)}
        timers |= {(name, kind): seconds for name in names for kind, seconds in LIBRARIES[name](op).items()}
        blocks = measure(timers, number, rounds)
        for kind in KINDS:
            cells = [format_times(blocks[name, kind]) if (name, kind) in blocks else "" for name in ["NumPy", *names]]
            if "torch" in names:
                r = ratio(blocks["tensorlite", kind], blocks["torch", kind])
                cells.append(f"{r.minimum:10.2f}{r.median:9.2f}")
            print(f"{op:10}{kind:10}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=20, help="chains in a block (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each library (default: %(default)s)")
    add_save_or_quick(parser)
    args = parser.parse_args()
    with saved("ops", args.save):
        print(describe_environment("torch", "autograd", "numba"))
        limits = measure_limits(args.quick)
        print(limits.describe())
        compare_small(args.number, args.rounds)
        op_throughput.compare(limits, -(-args.rounds // 4), 3 if args.quick else op_throughput.CALLS)


if __name__ == "__main__":
    main()
