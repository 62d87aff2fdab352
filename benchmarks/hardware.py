"""Measure the limits of a machine: the rate of a matrix product and the rate of reads from memory.

Every table divides its times by these limits, so that results from different processors can be compared.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from environment import available_cores, numpy_threads
from processes import start_process

import tensorlite as tl

SIZE = 2048  # rows and columns of the matrices; a product takes 17 GFLOP
MEMORY = 1 << 29  # bytes that are read
QUICK_SIZE, QUICK_MEMORY = 256, 1 << 22  # for a test of a benchmark; the rates are not the machine's limits
ROUNDS, PRODUCTS = 5, 3  # blocks of each library, and timed products in a block
SLOW = 0.5  # seconds of a product, for which one in a block is enough
PAUSE = 0.05  # seconds before a block, in which the idle threads of the other library stop spinning


class Product(NamedTuple):
    """The best rate of a matrix product in one library."""

    flops: float  # FLOP/s
    threads: int


class Limits(NamedTuple):
    """The measured limits of a machine."""

    products: dict[str, dict[str, Product]]  # by dtype and library
    bandwidth: float  # bytes/s that all threads together read from memory
    size: int  # rows and columns of the matrices

    def peak(self, dtype: str = "float32") -> float:
        """Return the FLOP/s of the fastest library's product; of float32 if none computes in this dtype."""
        products = self.products.get(dtype) or self.products["float32"]
        return max(product.flops for product in products.values())

    def percent_of_peak(self, flops: float, seconds: float, dtype: str = "float32") -> float:
        """Return the rate of ``flops`` operations in ``seconds``, in percent of the peak of this dtype."""
        return 100 * flops / seconds / self.peak(dtype)

    def percent_of_bandwidth(self, size: float, seconds: float) -> float:
        """Return the rate of ``size`` bytes in ``seconds``, in percent of the memory bandwidth."""
        return 100 * size / seconds / self.bandwidth

    def describe(self) -> str:
        """Return the limits as lines of a header."""
        lines = []
        for dtype, products in self.products.items():
            cells = "; ".join(
                f"{library} {product.flops / 1e9:.0f} GFLOP/s with {product.threads} threads"
                for library, product in products.items()
            )
            lines.append(f"product of {self.size} x {self.size} {dtype}: {cells}")
        peaks = ", ".join(f"{self.peak(dtype) / 1e9:.0f} GFLOP/s in {dtype}" for dtype in self.products)
        return "\n".join([
            *lines,
            f"memory: {self.bandwidth / 1e9:.1f} GB/s, read by {available_cores()} threads",
            f"100% is {peaks}, the fastest product, or {self.bandwidth / 1e9:.1f} GB/s",
        ])  # fmt: skip


class MemoryReads:
    """Measure how fast all cores together read an array from memory, with NumPy and tensorlite, or with PyTorch.

    No method is the fastest on every machine. The bandwidth changes with what other machines on the same host do, so
    ``measure`` can be called between the measurements that are compared with it.
    """

    def __init__(self, *libraries: str, size: int = MEMORY) -> None:
        matrix = np.ones((size >> 12, 1 << 10), np.float32)
        row = np.ones((1, matrix.shape[1]), np.float32)
        self.methods: list[Callable[[], Any]] = []
        if "NumPy" in libraries:
            parts, pool = np.array_split(matrix, available_cores()), ThreadPoolExecutor(available_cores())
            ours = [tl.from_numpy(a) for a in (row, matrix)]
            self.methods += [lambda: list(pool.map(np.max, parts)), lambda: ours[0] @ ours[1].T]
        if "torch" in libraries and find_spec("torch"):
            import torch

            theirs = [torch.from_numpy(a) for a in (row, matrix)]
            self.methods.append(lambda: theirs[0] @ theirs[1].T)
        self.size = matrix.nbytes
        self.rates: list[float] = []  # the best rate of each call of `measure`, in bytes/s

    def measure(self) -> float:
        """Read the memory three times by each method. Return the best rate so far, in bytes/s."""
        seconds = []
        for method in self.methods * 3:
            start = time.perf_counter()
            method()
            seconds.append(time.perf_counter() - start)
        self.rates.append(self.size / min(seconds))
        return max(self.rates)


def random_matrix(size: int) -> np.ndarray:
    """Return a square matrix of normal numbers, float32."""
    return np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)


def numpy_product(size: int, dtype: str) -> tuple[Callable[[], Any], int]:
    """Return a function that multiplies two matrices with NumPy, and the number of threads that it uses."""
    a = random_matrix(size)
    out = np.empty_like(a)
    return lambda: np.matmul(a, a, out=out), numpy_threads()


def tensorlite_product(size: int, dtype: str) -> tuple[Callable[[], Any], int]:
    """Return a function that multiplies two matrices with tensorlite, and the number of threads that it uses."""
    a = tl.from_numpy(random_matrix(size)).to(getattr(tl, dtype))
    return lambda: a @ a, tl.get_num_threads()


def torch_product(size: int, dtype: str) -> tuple[Callable[[], Any], int]:
    """Return a function that multiplies two matrices with PyTorch, and the number of threads that it uses."""
    import torch

    a = torch.from_numpy(random_matrix(size)).to(getattr(torch, dtype))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out), torch.get_num_threads()


PRODUCT_OF = {"NumPy": numpy_product, "tensorlite": tensorlite_product, "torch": torch_product}


def product_dtypes(library: str) -> list[str]:
    """Return the dtypes in which a library's product is measured here."""
    if library == "NumPy" or (library == "tensorlite" and not find_spec("ml_dtypes")):
        return ["float32"]
    return ["float32", "bfloat16"]


def measure_libraries(side: str, names: list[str], size: int, memory: int, pipe: Connection) -> None:
    """Run in a process of its own: for each (library, dtype) received, send the shortest time of a product, in seconds.

    Before that, send the number of threads by library, and the memory bandwidth in bytes/s.
    """
    found = {(name, dtype): PRODUCT_OF[name](size, dtype) for name in names for dtype in product_dtypes(name)}
    pipe.recv()
    pipe.send(({name: found[name, "float32"][1] for name in names}, MemoryReads(*names, size=memory).measure()))
    first = {key: timed(product) for key, (product, _) in found.items()}
    while key := pipe.recv():
        time.sleep(PAUSE)
        product = found[key][0]
        if first[key] < SLOW:
            product()  # warms up
        pipe.send(min(timed(product) for _ in range(PRODUCTS if first[key] < SLOW else 1)))


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_limits(quick: bool = False) -> Limits:
    """Measure the machine for about 15 seconds. The libraries alternate in blocks of three products.

    If ``quick``, the arrays are small, so that a test can run. The rates are then not the limits.
    """
    size, memory = (QUICK_SIZE, QUICK_MEMORY) if quick else (SIZE, MEMORY)
    # NumPy and tensorlite share a process. Their threads stop spinning in the pause before a block.
    groups = [["NumPy", "tensorlite"], *([["torch"]] if find_spec("torch") else [])]
    sides = [start_process(names[-1], measure_libraries, names, size, memory) for names in groups]
    pipe_of = {name: pipe for names, (_, pipe) in zip(groups, sides, strict=True) for name in names}

    def ask(pipe: Connection, message: Any) -> Any:
        pipe.send(message)
        return pipe.recv()

    answers = [ask(pipe, True) for _, pipe in sides]
    threads = {name: count for counts, _ in answers for name, count in counts.items()}
    keys = [(name, dtype) for dtype in ("float32", "bfloat16") for name in pipe_of if dtype in product_dtypes(name)]
    best = dict.fromkeys(keys, float("inf"))
    for _ in range(1 if quick else ROUNDS):
        for key in keys:
            best[key] = min(best[key], ask(pipe_of[key[0]], key))
    for process, pipe in sides:
        pipe.send(None)
        process.join()
    products: dict[str, dict[str, Product]] = {}
    for (name, dtype), seconds in best.items():
        products.setdefault(dtype, {})[name] = Product(2 * size**3 / seconds, threads[name])
    return Limits(products, max(rate for _, rate in answers), size)
