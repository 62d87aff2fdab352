"""Measure a training step on several processes: against one process, and on slow links against the expected time.

    python benchmarks/bench_distributed.py                  2 processes against one, with the same cores
    python benchmarks/bench_distributed.py --link           2 processes on simulated links, and what is expected

All sides train the same GPT from the same weights on the same batches, of which each process takes its part. Blocks of
steps alternate. The losses are compared step by step. distributed_rank.py has the steps, link_engine.py the links.
"""

import os
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
from distributed_rank import Block, Order, Ranks
from disturbance import Disturbance
from environment import describe_environment, saved
from processes import exit_unless, in_turn, options
from ratios import ratio
from step_sides import SHAPES

from gpt.cli.scaling import format_time
from gpt.config import Config
from gpt.model.scaling import Link, Passes, expect
from gpt.model.size import format_si
from gpt.train.step_time import copy_rate

PROCESSES = 2
TOLERANCE = 1e-4  # nats that the loss of a step may differ: the sums of the gradients have another order
COMPARED = 100  # steps of a side, because the differences grow from step to step
GOALS = {"S": 1.0, "L": 1.05}  # ratio of medians
COMPILE = ", compile"
COMPILED = ("S", "M")  # `gpt train` does not record a step of L, which spends little time in Python
RECORDED = 4  # steps after which tl.compile has made its plan
LATENCY = 50e-6  # seconds
WIDTHS = (11, 12, 10, 10, 10)  # of the columns of times
BANDWIDTHS = (1.25e9, 1.25e8, 2.5e7)  # bytes/s: 10 Gbit/s, 1 Gbit/s, 200 Mbit/s


def find_mpiexec() -> str | None:
    """Return the mpiexec of this Python's environment, or else of the system; None if there is none."""
    folders = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return shutil.which("mpiexec", path=folders)


def compare_losses(first: list[float], others: list[float]) -> bool:
    """Print how far the losses of two sides are apart. Return whether they agree."""
    apart = float(np.abs(np.subtract(first, others)).max())
    verdict = f"allowed are {TOLERANCE:g}" if apart <= TOLERANCE else f"MORE THAN {TOLERANCE:g}, NO RESULT"
    print(f"losses of the first {len(first)} steps differ by at most {apart:.1e} nats; {verdict}")
    return apart <= TOLERANCE


def collect(sides: dict[str, tuple[Ranks, Order]], rounds: int, disturbance: Disturbance) -> dict[str, list[Block]]:
    """Return the blocks of each side. The first one warms up, and is there for its losses."""
    blocks: dict[str, list[Block]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in in_turn(sides, number):
            ranks, order = sides[name]
            if number == 0:
                blocks[name].append(ranks.run(order._replace(steps=max(order.steps, RECORDED))))
            else:
                with disturbance:
                    blocks[name].append(ranks.run(order))
    return blocks


def seconds(blocks: list[Block]) -> list[list[float]]:
    """Return the times of the steps of each block, but not the first of a block, in which the caches are cold."""
    return [block.seconds[1:] or block.seconds for block in blocks[1:]]


def measure(mpiexec: str, name: str, rounds: int, quick: bool) -> bool:
    """Print the table of one shape. Return whether the losses agree."""
    shape = SHAPES[name]
    steps = 2 if quick else shape.steps
    many = f"{PROCESSES} processes"
    ranks = {
        "1 process": Ranks([], 1, name),
        many: Ranks([mpiexec, "-n", str(PROCESSES)], PROCESSES, name),
    }
    # Plain and replayed steps are of the same processes, and go on training the same model.
    ends = ("", COMPILE) if name in COMPILED else ("",)
    sides = {side + end: (one, Order(steps, compiled=end == COMPILE)) for end in ends for side, one in ranks.items()}
    disturbance = Disturbance()
    found = collect(sides, rounds, disturbance)
    for one in ranks.values():
        one.stop()
    print(f"\nshape {name}: batch {shape.batch_size}, {rounds} rounds of {max(1, steps - 1)} timed steps each")
    print(f"{'ms a step':22}{'minimum':>10}{'median':>10}{'90% below':>12}")
    for side, blocks in found.items():
        times = [1e3 * value for block in seconds(blocks) for value in block]
        print(f"{side:22}{min(times):10.2f}{statistics.median(times):10.2f}{np.quantile(times, 0.9):12.2f}")
    agreed = []
    for end in ends:
        ours, theirs = found[many + end], found["1 process" + end]
        r = ratio(seconds(ours), seconds(theirs))
        goal = "" if end or name not in GOALS else f"; goal {GOALS[name]:g}{' MISSED' * (r.median > GOALS[name])}"
        label = "ratio-compile" if end else "ratio"
        print(f"{label:22}{r.minimum:10.3f}{r.median:10.3f}   (below 1: {many} are faster than one{goal})")
        print(r.by_round())
        losses = ([loss for block in side for loss in block.losses][:COMPARED] for side in (ours, theirs))
        agreed.append(compare_losses(*losses))
    print(disturbance.describe(), flush=True)
    return all(agreed)


def measure_links(mpiexec: str, name: str, rounds: int, quick: bool) -> bool:
    """Print measured and expected times of a step on links. Return whether as many bytes as expected were sent."""
    shape = SHAPES[name]
    steps = 2 if quick else shape.steps
    config = Config.load("shakespeare-char-cpu", {"train.batch_size": shape.batch_size})
    config = config.replace({f"model.{key}": getattr(shape.config(), key) for key in ("n_layer", "n_head", "n_embd")})
    config = config.replace({"model.block_size": shape.block_size, "model.bias": False})
    ranks = Ranks([mpiexec, "-n", str(PROCESSES)], PROCESSES, name)
    orders = {"alone": Order(steps, together=False)}
    orders |= {f"{format_si(8 * b, 'bit/s')}": Order(steps, Link(b, LATENCY)) for b in BANDWIDTHS}
    disturbance = Disturbance()
    found = collect({side: (ranks, order) for side, order in orders.items()}, rounds, disturbance)
    ranks.stop()
    passes = np.concatenate([block.passes[1:] for block in found["alone"][1:]])
    rate = copy_rate()
    print(f"\nshape {name} on {PROCESSES} processes: {rounds} rounds of {max(1, steps - 1)} timed steps each")
    print("each process alone, of its part of the batch: forward {}, backward {}, update {}".format(
        *map(format_time, np.median(passes, axis=0))))  # fmt: skip
    names = ("transfers", "not hidden", "expected", "minimum", "median", "measured / expected: minima, medians")
    print(f"{'link':14}" + "".join(f"{name:>{width}}" for name, width in zip(names, (*WIDTHS, 38), strict=True)))
    agreed = True
    for side, blocks in list(found.items())[1:]:
        link = orders[side].link
        assert link is not None
        times = [value for block in seconds(blocks) for value in block]
        rows = [
            expect(config, PROCESSES, Passes(0.0, *summary(passes, axis=0).tolist()), link, rate)
            for summary in (np.min, np.median)
        ]
        low, median = min(times), statistics.median(times)
        numbers = (rows[1].transfer, rows[1].exposed, rows[1].step, low, median)
        cells = "".join(f"{format_time(value):>{width}}" for value, width in zip(numbers, WIDTHS, strict=True))
        print(f"{side:14}{cells}{low / rows[0].step:30.2f}{median / rows[1].step:8.2f}")
        agreed = agreed and all(block.sent == {rows[0].sent} for block in blocks)
    print(f"in each step, a process sends {rows[0].sent:,} bytes, as expected" if agreed else "OTHER BYTES, NO RESULT")
    print(disturbance.describe(), flush=True)
    return agreed


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, ())
    parser.add_argument("--link", action="store_true", help="on simulated links, against what is expected; shape M")
    parser.add_argument("--rounds", type=int, default=10, help="timed blocks of each side (default: %(default)s)")
    args = parser.parse_args()
    mpiexec = find_mpiexec()
    if mpiexec is None:
        sys.exit("bench_distributed: expected mpiexec, which is not there. Run pip install 'tensorlite[mpi]'")
    with saved("distributed", args.save):
        print(describe_environment("numba", "mpi4py", "mpich"))
        shapes = (["M"] if args.link else list(SHAPES)) if args.shape == "all" else [args.shape]
        work = measure_links if args.link else measure
        agreed = [work(mpiexec, shape, args.rounds, args.quick) for shape in shapes]
    exit_unless(agreed)


if __name__ == "__main__":
    main()
