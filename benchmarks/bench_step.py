"""Measure a training step of a GPT: tensorlite against PyTorch, on the same model and batches.

    python benchmarks/bench_step.py                 all shapes
    python benchmarks/bench_step.py --shape M       the model of `make train`

Both libraries are measured in float32 and in bfloat16 (autocast), and with their compilers: torch.compile, and in
float32 tl.compile. A ratio is against the faster of PyTorch's two in the same dtype. All sides start from the same
weights and get the same batches. They alternate in blocks of a few steps, each in a process of its own, so that a
disturbance meets all. The losses are compared step by step. step_sides.py has the steps.
"""

import statistics
from collections.abc import Iterable

import numpy as np
from disturbance import Disturbance
from environment import describe_environment, saved
from gpt_cost import step_flops
from hardware import Limits, measure_limits
from processes import exit_unless, in_turn, options, start_process
from ratios import Blocks, faster, flatten, ratio
from step_sides import SHAPES, SIDES, VOCAB_SIZE, Shape, Weights, train, why_left_out

# Nats that the loss of any step may differ from float32's. bfloat16 rounds to 1 part in 256, and losses are about 4.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}


class Measured:
    """One side: its process, and what it has measured."""

    def __init__(self, name: str, shape: Shape, weights: Weights) -> None:
        self.process, self.pipe = start_process(SIDES[name].library, train, name, shape, weights)
        self.blocks: list[list[float]] = []
        self.losses: list[float] = []
        self.memory = float("nan")  # MiB

    def run(self, steps: int, timed: bool) -> None:
        """Take some steps. The time of the first one does not count, because the caches are cold."""
        self.pipe.send(steps)
        seconds, losses = zip(*self.pipe.recv(), strict=True)
        self.losses += losses
        if timed:
            self.blocks.append(list(seconds[1:] or seconds))

    def stop(self) -> None:
        self.pipe.send(0)
        self.memory = self.pipe.recv()
        self.process.join()


def print_rows(sides: dict[str, Measured], flops: float, limits: Limits) -> None:
    """Print the times, the rate and the memory of each side."""
    columns = {"minimum": 10, "median": 10, "90% below": 12, "GFLOP/s": 10, "% of peak": 12, "peak MiB": 11}
    print(f"{'ms a step':20}" + "".join(f"{column:>{width}}" for column, width in columns.items()))
    for name, side in sides.items():
        times = flatten(side.blocks)
        low, median, high = (1e3 * value for value in (min(times), statistics.median(times), np.quantile(times, 0.9)))
        percent = limits.percent_of_peak(1e3 * flops, median, SIDES[name].dtype)
        rate = flops / median / 1e6
        print(f"{name:20}{low:10.2f}{median:10.2f}{high:12.2f}{rate:10.1f}{percent:12.1f}{side.memory:11.1f}")


def print_ratio(label: str, ours: Measured, theirs: dict[str, Measured], what: str) -> None:
    """Print the ratios of a side to the fastest of some others, and which one that is."""
    blocks: dict[str, Blocks] = {name: side.blocks for name, side in theirs.items()}
    by_minimum, by_median = faster(blocks, min), faster(blocks, statistics.median)
    r = ratio(ours.blocks, blocks[by_median])
    minimum = ratio(ours.blocks, blocks[by_minimum]).minimum
    memory = ours.memory / theirs[by_median].memory
    than = by_median if by_median == by_minimum else f"{by_median} (minima: {by_minimum})"
    print(f"{label:20}{minimum:10.3f}{r.median:10.3f}{'':34}{memory:11.3f}   (below 1: {what} is better than {than})")
    print(r.by_round())


def print_ratios(sides: dict[str, Measured]) -> None:
    """Print the ratios to the faster side of PyTorch in each dtype, and bfloat16's to our own float32."""
    for dtype, label in (("float32", "ratio"), ("bfloat16", "ratio-bf16")):
        ours = {name: side for name, side in sides.items() if SIDES[name][:2] == ("tensorlite", dtype)}
        theirs = {name: side for name, side in sides.items() if SIDES[name][:2] == ("torch", dtype)}
        for name, side in ours.items():
            if theirs:
                print_ratio(f"{label}-compile" if SIDES[name].compiled else label, side, theirs, name)
    if {"tensorlite", "tensorlite-bf16"} <= sides.keys():
        print_ratio("ratio-own", sides["tensorlite-bf16"], {"tensorlite": sides["tensorlite"]}, "tensorlite-bf16")


def compare_losses(losses: dict[str, list[float]]) -> bool:
    """Print how far the losses are from those of the first side, by dtype. Return whether they agree."""
    first = next(iter(losses.values()))
    agreed = True
    for dtype, tolerance in TOLERANCE.items():
        others = [values for name, values in losses.items() if SIDES[name].dtype == dtype and values is not first]
        if others:
            apart = float(np.abs(np.subtract(others, first)).max())  # NaN if any loss is NaN
            agreed = agreed and apart <= tolerance
            verdict = f"allowed are {tolerance:g}" if apart <= tolerance else f"MORE THAN {tolerance:g}, NO RESULT"
            print(f"losses in {dtype} differ from {next(iter(losses))}'s by at most {apart:.1e} nats; {verdict}")
    return agreed


def measure(shape_name: str, names: Iterable[str], limits: Limits, rounds: int, quick: bool) -> bool:
    """Print the table of one shape. Return whether the losses agree; True if only one side is measured."""
    shape = SHAPES[shape_name]._replace(steps=3) if quick else SHAPES[shape_name]
    weights = shape.weights()
    sides = {name: Measured(name, shape, weights) for name in names}
    disturbance = Disturbance()
    for number in range(rounds + 1):  # the first round warms up
        for name in in_turn(sides, number):
            if number == 0:
                sides[name].run(shape.steps, timed=False)
            else:
                with disturbance:
                    sides[name].run(shape.steps, timed=True)
    for side in sides.values():
        side.stop()

    flops = step_flops(shape.config(), shape.batch_size)
    print(
        f"\nshape {shape_name}: {shape.n_layer} layers, {shape.n_head} heads, {shape.n_embd} wide, context "
        f"{shape.block_size}, batch {shape.batch_size}, vocabulary {VOCAB_SIZE}; {flops / 1e9:.3g} GFLOP a step; "
        f"{rounds} rounds of {shape.steps - 1} timed steps each"
    )
    print_rows(sides, flops, limits)
    print_ratios(sides)
    agreed = compare_losses({name: side.losses for name, side in sides.items()})
    print(disturbance.describe(), flush=True)
    return agreed


def choose_sides(only: str | None, quick: bool) -> list[str]:
    """Return the sides to measure, and print why any is left out."""
    names = []
    for name in SIDES if only is None else [only]:
        slow = quick and name.startswith("torch-compile")
        reason = "compiling takes half a minute" if slow else why_left_out(name)
        if reason:
            print(f"{name} is left out: {reason}")
        else:
            names.append(name)
    return names


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, SIDES)
    parser.add_argument("--rounds", type=int, default=8, help="timed blocks of each side (default: %(default)s)")
    args = parser.parse_args()
    with saved("step", args.save):
        print(describe_environment("torch", "numba"))
        limits = measure_limits(args.quick)
        print(limits.describe())
        names = choose_sides(args.only, args.quick)
        shapes = SHAPES if args.shape == "all" else [args.shape]
        agreed = [measure(shape, names, limits, args.rounds, args.quick) for shape in shapes]
    exit_unless(agreed)


if __name__ == "__main__":
    main()
