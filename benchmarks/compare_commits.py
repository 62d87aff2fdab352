"""Measure two commits of tensorlite against each other: training steps, the overhead of an op, a token, the import.

    python benchmarks/compare_commits.py BASE           BASE against HEAD, a few minutes
    python benchmarks/compare_commits.py BASE COMMIT    BASE against COMMIT

Both commits are checked out into temporary worktrees, so changes that are not committed do not count. For each task,
both have a process of their own and alternate in blocks of less than half a second. A second pair of processes does it
again, because the layout of memory differs between processes. An import is a process by itself; NumPy's own import does
not count. The losses and the tokens of the two commits are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environment import describe_environment
from processes import in_turn
from ratios import Blocks, flatten, ratio

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("commit_worker.py")
# The unit of each task that is timed in a persistent process, and how many of it are a second.
TASKS = {
    "step S": ("ms", 1e3),
    "step M": ("ms", 1e3),
    "recorded op": ("us", 1e6),
    "no_grad op": ("us", 1e6),
    "token M": ("us", 1e6),
}
IMPORT = "import numpy, time; start = time.perf_counter(); import tensorlite; print(time.perf_counter() - start)"
TOLERANCE = 1e-4  # nats that losses may differ by


def git(*args: str) -> str:
    """Run git in this checkout and return what it prints."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Context manager that checks out a commit into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tensorlite-") as folder:
        path = Path(folder) / "checkout"
        git("worktree", "add", "--detach", str(path), commit)
        try:
            yield path
        finally:
            git("worktree", "remove", "--force", str(path))


def start(checkout: Path, *command: str) -> subprocess.Popen[str]:
    """Start Python with a checkout's packages."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str]) -> tuple[list[float], list[float]]:
    """Let a worker run one block. Return its times in seconds and its values."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    if not (line := process.stdout.readline()):
        raise RuntimeError("a worker ended; its error is above")
    answer = json.loads(line)
    return answer["times"], answer["values"]


def measure_task(task: str, checkouts: list[Path], pairs: int, rounds: int) -> tuple[list[Blocks], float]:
    """Return the blocks of both commits, and by how much their values differ at most."""
    blocks: list[list[list[float]]] = [[], []]
    apart = 0.0
    for _ in range(pairs):
        workers = [start(checkout, str(WORKER), task) for checkout in checkouts]
        for number in range(rounds + 1):  # the first round warms up, and compiles in a new checkout
            values: dict[int, list[float]] = {}
            for side in in_turn([0, 1], number):
                times, values[side] = ask(workers[side])
                if number:
                    blocks[side].append(times)
            apart = max([apart, *(abs(a - b) for a, b in zip(values[0], values[1], strict=True))])
        for worker in workers:
            worker.communicate()
    return list(blocks), apart


def measure_import(checkouts: list[Path], rounds: int) -> list[Blocks]:
    """Return the times of importing tensorlite of both commits, one block of one import a round."""
    blocks: list[list[list[float]]] = [[], []]
    for number in range(rounds + 1):  # the first round writes the compiled files
        for side in in_turn([0, 1], number):
            seconds = float(start(checkouts[side], "-c", IMPORT).communicate()[0])
            if number:
                blocks[side].append([seconds])
    return list(blocks)


def print_row(task: str, unit: str, factor: float, blocks: list[Blocks]) -> None:
    """Print the times of both commits and their ratios."""
    base, head = blocks
    cells = [f(flatten(side)) * factor for side in blocks for f in (min, statistics.median)]
    r = ratio(head, base)
    print(
        f"{f'{task}, {unit}':20}" + "".join(f"{cell:10.3f}" for cell in cells) + f"{r.minimum:11.3f}{r.median:9.3f}"
        f"{f'{r.low:.3f} to {r.high:.3f}':>19}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", metavar="BASE", help="the commit to compare with")
    parser.add_argument("head", metavar="COMMIT", nargs="?", default="HEAD", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=12, help="blocks of each process (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=2, help="pairs of processes of a task (default: %(default)s)")
    parser.add_argument("--task", choices=[*TASKS, "import"], action="append", help="default: all tasks")
    args = parser.parse_args()
    names = [git("rev-parse", "--short", commit) for commit in (args.base, args.head)]
    tasks = args.task or [*TASKS, "import"]
    agreed = True
    with worktree(args.base) as base, worktree(args.head) as head:
        print(describe_environment("numba"))
        print(f"\n{names[1]} against {names[0]}: {args.pairs} pairs of processes, {args.rounds} rounds each\n")
        print(f"{'':20}{names[0]:>20}{names[1]:>20}{'ratio (below 1: ' + names[1] + ' is faster)':>39}")
        print(f"{'':20}" + f"{'minimum':>10}{'median':>10}" * 2 + f"{'minimum':>11}{'median':>9}{'80% of rounds':>19}")
        for task in tasks:
            if task == "import":
                print_row("import", "ms", 1e3, measure_import([base, head], args.pairs * args.rounds))
                continue
            blocks, apart = measure_task(task, [base, head], args.pairs, args.rounds)
            print_row(task, *TASKS[task], blocks)
            if apart > TOLERANCE:
                agreed = False
                print(f"{'':20}the values differ by {apart:.1e}: MORE THAN {TOLERANCE}, NO RESULT")
    sys.exit(not agreed)


if __name__ == "__main__":
    main()
