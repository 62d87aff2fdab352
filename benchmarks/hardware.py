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

SIZE = 2048  # rows and columns of the matrices, float32; a product takes 17 GFLOP
MEMORY = 1 << 29  # bytes that are read
QUICK_SIZE, QUICK_MEMORY = 256, 1 << 22  # for a test of a benchmark; the rates are not the machine's limits
ROUNDS, PRODUCTS = 5, 3  # blocks of each library, and timed products in a block
PAUSE = 0.05  # seconds before a block, in which the idle threads of the other library stop spinning


class Product(NamedTuple):
    """The best rate of a matrix product in one library."""

    flops: float  # FLOP/s
    threads: int


class Limits(NamedTuple):
    """The measured limits of a machine."""

    products: dict[str, Product]  # by library
    bandwidth: float  # bytes/s that all threads together read from memory
    size: int  # rows and columns of the matrices

    @property
    def peak(self) -> float:
        """FLOP/s of the faster library's product."""
        return max(product.flops for product in self.products.values())

    def percent_of_peak(self, flops: float, seconds: float) -> float:
        """Return the rate of ``flops`` operations in ``seconds``, in percent of the peak."""
        return 100 * flops / seconds / self.peak

    def percent_of_bandwidth(self, size: float, seconds: float) -> float:
        """Return the rate of ``size`` bytes in ``seconds``, in percent of the memory bandwidth."""
        return 100 * size / seconds / self.bandwidth

    def describe(self) -> str:
        """Return the limits as lines of a header."""
        products = "; ".join(
            f"{library} {product.flops / 1e9:.0f} GFLOP/s with {product.threads} threads"
            for library, product in self.products.items()
        )
        return (
            f"product of {self.size} x {self.size} float32: {products}\n"
            f"memory: {self.bandwidth / 1e9:.1f} GB/s, read by {available_cores()} threads\n"
            f"100% is {self.peak / 1e9:.0f} GFLOP/s, the faster product, or {self.bandwidth / 1e9:.1f} GB/s"
        )


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


def numpy_product(size: int) -> tuple[Callable[[], Any], int]:
    """Return a function that multiplies two matrices with NumPy, and the number of threads that it uses."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    out = np.empty_like(a)
    return lambda: np.matmul(a, a, out=out), numpy_threads()


def torch_product(size: int) -> tuple[Callable[[], Any], int]:
    """Return a function that multiplies two matrices with PyTorch, and the number of threads that it uses."""
    import torch

    a = torch.from_numpy(np.random.default_rng(0).standard_normal((size, size)).astype(np.float32))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out), torch.get_num_threads()


PRODUCT_OF = {"NumPy": numpy_product, "torch": torch_product}


def measure_library(library: str, size: int, memory: int, pipe: Connection) -> None:
    """Run in a process of its own: for each True received, send the shortest time of a product, in seconds.

    Before that, send the number of threads and the memory bandwidth in bytes/s.
    """
    product, threads = PRODUCT_OF[library](size)
    pipe.recv()
    pipe.send((threads, MemoryReads(library, size=memory).measure()))
    product()
    while pipe.recv():
        time.sleep(PAUSE)
        times = []
        for _ in range(PRODUCTS + 1):  # the first warms up
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        pipe.send(min(times[1:]))


def measure_limits(quick: bool = False) -> Limits:
    """Measure the machine for about ten seconds. The libraries alternate in blocks of three products.

    If ``quick``, the arrays are small, so that a test can run. The rates are then not the limits.
    """
    size, memory = (QUICK_SIZE, QUICK_MEMORY) if quick else (SIZE, MEMORY)
    names = [name for name in PRODUCT_OF if name == "NumPy" or find_spec(name)]
    sides = {name: start_process(name, measure_library, size, memory) for name in names}

    def ask(name: str) -> Any:
        pipe = sides[name][1]
        pipe.send(True)
        return pipe.recv()

    threads, bandwidths = zip(*(ask(name) for name in sides), strict=True)
    best = [min(times) for times in zip(*([ask(name) for name in sides] for _ in range(ROUNDS)), strict=True)]
    for process, pipe in sides.values():
        pipe.send(False)
        process.join()
    rates = [2 * size**3 / seconds for seconds in best]
    return Limits(dict(zip(sides, map(Product, rates, threads), strict=True)), max(bandwidths), size)
