"""The time of the parts of a training step on this machine: measured, or estimated for models that take too long."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

import tensorlite as tl
from gpt.config import Config
from gpt.model import GPT
from gpt.model.scaling import Passes, step_sequences
from gpt.model.size import flops_per_token, format_si, memory, parameter_count
from gpt.train.optimizer import configure_optimizer
from gpt.train.precision import check_precision, make_autocast

BUDGET = 1.5  # seconds that the measured steps may take together
MAX_BYTES = 1 << 30  # of a step that is measured
# Of the rate of a large product: 73% with six layers of width 384, in benchmarks/results/step-2026-11-28-*.txt.
UTILIZATION = 0.7
# The parts of an estimated step: a backward pass has twice the products of a forward pass. Little is left for the rest.
FORWARD, BACKWARD = 1 / 3, 2 / 3
PRODUCT = 1024  # rows and columns of the matrices that give the rate
COPIED = 1 << 25  # bytes
ROUNDS = 3


class StepTimes:
    """Times of a step by the number of sequences in a batch. points: of one batch. source: how they were found."""

    def __init__(self, config: Config, points: dict[int, Passes], source: str) -> None:
        self.batches, self.points, self.source = config.train.grad_accum, dict(sorted(points.items())), source

    def passes(self, size: int) -> Passes:
        """Return the seconds of a step whose batches have ``size`` sequences on this process."""
        _, forward, backward, update = self._batch(size)
        return Passes((self.batches - 1) * (forward + backward), forward, backward, update)

    def _batch(self, size: int) -> Passes:
        """Return the seconds of one batch, on the line through the points."""
        sizes = list(self.points)
        if len(sizes) == 1:
            return self.points[sizes[0]]
        (a, first), (b, last) = self.points.items()
        t = (size - a) / (b - a)
        return Passes(*(max(0.0, x + t * (y - x)) for x, y in zip(first, last, strict=True)))


def find_step_times(config: Config, counts: Sequence[int], given: float | None = None) -> StepTimes:
    """Return the times of steps of these numbers of processes. It takes a few seconds.

    given: seconds of a step on one process, if they are known. A batch with fewer sequences then takes less time in
    proportion. Otherwise steps are measured, with random tokens on the CPU, without `tl.compile`. They are estimated if
    BUDGET or MAX_BYTES do not suffice: from the arithmetic, and the measured rate of a matrix product. Raises
    ConfigError for a dtype that this machine does not compute.
    """
    t = config.train
    low, high = t.batch_size // max(counts), t.batch_size // min(counts)
    if given is not None:
        return proportional(config, given / step_sequences(config), "--step-time")
    check_precision(config)
    rate = product_rate(t.dtype) * UTILIZATION
    seconds = flops_per_token(config.model) * config.model.block_size / rate  # of a sequence
    if max(seconds * (low + high), parameter_count(config.model) * 1e-8) * (ROUNDS + 1) > BUDGET or too_large(config):
        what = f"estimated from {format_si(flops_per_token(config.model), 'FLOP')} a token at {rate / 1e9:.0f} GFLOP/s"
        return proportional(config, seconds, what)
    step = make_step(config)
    for size in (low, high):  # These steps compile loops and fill caches.
        step(size)
    points = {size: Passes(*np.min([step(size) for _ in range(ROUNDS)], axis=0).tolist()) for size in (low, high)}
    return StepTimes(config, points, f"measured here with {tl.get_num_threads()} threads")


def proportional(config: Config, seconds: float, source: str) -> StepTimes:
    """Return the times of steps whose sequences take the same time each, in seconds."""
    sizes = sorted({1, config.train.batch_size})
    points = {size: Passes(0.0, FORWARD * size * seconds, BACKWARD * size * seconds, 0.0) for size in sizes}
    return StepTimes(config, points, source)


def too_large(config: Config) -> bool:
    """Return whether a batch needs more memory than a measurement may take."""
    return sum(memory(config).values()) > MAX_BYTES


def make_step(config: Config) -> Callable[[int], Passes]:
    """Return a function that takes a step with a number of sequences, and returns the seconds of its parts."""
    tl.manual_seed(0)
    model = GPT(dataclasses.replace(config.model)).to("cpu", getattr(tl, config.train.parameter_dtype))
    optimizer, autocast = configure_optimizer(model, config.optim), make_autocast(config.train, model)
    parameters, clip = list(model.parameters()), config.optim.grad_clip or math.inf
    rng = np.random.default_rng(0)

    def step(size: int) -> Passes:
        x, y = (tl.from_numpy(rng.integers(0, config.model.vocab_size, (size, config.model.block_size))) for _ in "xy")
        times = [time.perf_counter()]
        with autocast():
            loss = model(x, y)[1]
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        tl.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        return Passes(0.0, *np.diff(times).tolist())

    return step


def product_rate(dtype: str) -> float:
    """Return the FLOP/s of a product of two large matrices; in float32 if the dtype is not computed on the CPU."""
    kind = getattr(tl, dtype if dtype in ("float64", "bfloat16") else "float32")
    x = tl.ones(PRODUCT, PRODUCT).to(kind)
    with tl.no_grad():
        return 2 * PRODUCT**3 / shortest(lambda: x @ x)


def copy_rate() -> float:
    """Return the bytes a second at which one process copies."""
    source, target = np.ones(COPIED, np.uint8), np.ones(COPIED, np.uint8)
    return COPIED / shortest(lambda: np.copyto(target, source))


def shortest(function: Callable[[], object]) -> float:
    """Return the least seconds of some calls, after one that does not count."""
    function()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times)
