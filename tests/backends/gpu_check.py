"""``python -m tests.backends.gpu_check``: what the tests say about NumPy, said about the GPU. `make gpu-check`.

Every check does the same on the device and on the CPU and compares. It needs numpy, cupy and no network, and none of
the extras of ``gpt``. Without a GPU there is nothing to check: it says why, and exits 0. Otherwise it exits 0 if every
case passed, 1 if not.
"""
import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig, OptimConfig
from gpt.generation import generate
from gpt.model import GPT
from tensorlite import nn, optim
from tensorlite.testing import OpSpec, Sample
from tests.ops.op_table import SPECS

Case = tuple[str, Callable[[], float], float]
"""A name, a function that computes how far the device is off, and how far it may be."""


# ---- comparing ------------------------------------------------------------------------------


def numpy(x: tl.Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference, as a part of the largest expected number, or of 1 if that is smaller."""
    assert len(found) == len(expected), f"{len(found)} results instead of {len(expected)}"
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite])
        assert np.isfinite(a[finite]).all(), f"{a[finite & ~np.isfinite(a)][0]} instead of a finite number"
        if finite.any():
            scale = max(1.0, float(np.abs(b[finite]).max()))
            worst = max(worst, float(np.abs(a[finite] - b[finite]).max()) / scale)
    return worst


# ---- ops ------------------------------------------------------------------------------------

LIMITS = {tl.float64: 1e-10, tl.float32: 1e-4, tl.float16: 5e-2}


def computed(row: OpSpec, sample: Sample, arrays: Sequence[np.ndarray], dtype: Any, device: Any) -> list[tl.Tensor]:
    """The results of an op, its gradients through random cotangents, and in float64 the gradients of their squares."""
    tensors = [
        tl.tensor(a, dtype if a.dtype.kind == "f" else None, device, requires_grad=i.grad)
        for a, i in zip(arrays, sample.inputs(), strict=True)
    ]
    args, kwargs = sample.fill(tensors)
    result = row.f(*args, **kwargs)
    results = [result] if isinstance(result, tl.Tensor) else list(result)
    ys, xs = ([t for t in ts if t.requires_grad] for ts in (results, tensors))
    rng = np.random.default_rng(0)
    cotangents = [tl.tensor(np.asarray(rng.standard_normal(y.shape)), y.dtype, device) for y in ys]
    twice = dtype == tl.float64 and row.order > 1
    if ys and xs:
        found = tl.autograd.grad(ys, xs, cotangents, create_graph=twice, allow_unused=True)
        first = [g for g in found if g is not None]
        squares = [g.square().sum() for g in first if g.requires_grad]
        second = tl.autograd.grad(squares, xs, allow_unused=True) if squares else ()
        results += [*first, *(g for g in second if g is not None)]
    for tensor in results:
        assert tensor.device.type == device.type, f"a result is on {tensor.device}"
    return results


def evaluated(*case: Any) -> list[np.ndarray]:
    """The same on the host."""
    return [numpy(tensor) for tensor in computed(*case)]


def ops(device: tl.Device) -> Iterator[Case]:
    """Every sample of the table: values and gradients."""
    for row in SPECS.values():
        for k, (sample, arrays) in enumerate(zip(row.samples, row.arrays, strict=True)):
            for dtype, limit in LIMITS.items():
                if dtype == tl.float16 and not (row.half and row.order):
                    continue

                def compare(case: Any = (row, sample, arrays, dtype)) -> float:
                    return difference(evaluated(*case, device), evaluated(*case, tl.device("cpu")))

                yield f"{row.name} {k} in {dtype}", compare, limit


# ---- what the table has no rows for ---------------------------------------------------------


def memory(device: tl.Device) -> Iterator[Case]:
    """Transfers, assignments, changes in place, integers."""
    rng = np.random.default_rng(0)
    x, ids, mask = rng.standard_normal((4, 5)), rng.integers(0, 4, 7), rng.integers(0, 2, (4, 5)) > 0

    def assigned(index: Any, value: Any) -> Callable[[Any], tl.Tensor]:
        def f(where: Any) -> tl.Tensor:
            t = tl.tensor(x, device=where)
            on = tuple(tl.tensor(i, device=where) if isinstance(i, np.ndarray) else i for i in index)
            t[on] = tl.tensor(value, device=where) if isinstance(value, np.ndarray) else value
            return t

        return f

    def added(dtype: Any) -> Callable[[Any], tl.Tensor]:
        return lambda where: tl.zeros(4, 5, dtype=dtype, device=where).index_add(
            0, tl.tensor(ids, device=where), tl.ones(7, 5, dtype=dtype, device=where)
        )

    def in_place(where: Any) -> tl.Tensor:
        t = tl.tensor(x, device=where)
        view = t[1:]
        t.mul_(2).add_(tl.ones(5, device=where, dtype=tl.float64)).clamp_(-1, 1)
        return view.masked_fill_(tl.tensor(mask[1:], device=where), 7.0).sub_(0.5)

    cases: dict[str, Callable[[Any], tl.Tensor]] = {
        "to the device and back": lambda where: tl.tensor(x).to(where).cpu(),
        "a view to the device": lambda where: tl.tensor(x).T[::2].to(where),
        "assign a row": assigned((1,), rng.standard_normal(5)),
        "assign a slice": assigned((slice(1, 3), slice(None, None, 2)), 2.5),
        "assign by indices": assigned((ids[:2], ids[2:4]), rng.standard_normal(2)),
        "assign by a mask": assigned((mask,), rng.standard_normal(int(mask.sum()))),
        "where by a bool": lambda where: tl.where(True, tl.tensor(x, device=where), 0.0),
        "in place": in_place,
        "arange, linspace, eye, full": lambda where: tl.cat(
            [tl.arange(1, 9, 2, device=where), tl.linspace(0, 1, 5, device=where), tl.eye(3, device=where)[1],
             tl.full((2,), 7, device=where)]),
        **{f"index_add in {t}": added(t) for t in (tl.int64, tl.int32, tl.uint8, tl.float16, tl.float32)},
    }  # fmt: skip
    for name, f in cases.items():
        yield name, lambda f=f: difference([numpy(f(device))], [numpy(f(tl.device("cpu")))]), 1e-7  # type: ignore[misc]


def randomness(device: tl.Device) -> Iterator[Case]:
    """The philox generator: known answers, the same state gives the same numbers, moments, dropout."""

    def known() -> float:
        """Random123's own known answers, for a counter and a key of zeros."""
        generator = tl.Generator(0)
        generator.set_state({**generator.get_state(), "seed": 0, "offset": 0})
        words = [0x6627E8D5, 0xE169C58D]  # the first 24 of 32 bits make a float32
        found = numpy(tl.rand(2, device=device, generator=generator))
        return difference([found], [np.array([w >> 8 for w in words], np.float32) / np.float32(2**24)])

    def repeated() -> float:
        state = tl.get_rng_state()
        first = [numpy(f) for f in (tl.rand(3, 5, device=device), tl.randn(4, device=device))]
        tl.set_rng_state(state)
        return difference([numpy(tl.rand(3, 5, device=device)), numpy(tl.randn(4, device=device))], first)

    def moments(draw: Callable[..., tl.Tensor], mean: float, std: float) -> Callable[[], float]:
        def f() -> float:
            x = draw(tl.Generator(1))
            return max(abs(x.mean().item() - mean), abs(x.std().item() - std)) / std

        return f

    def dropped() -> float:
        tl.manual_seed(3)
        y = numpy(F.dropout(tl.ones(100_000, device=device), 0.25))
        assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
        return abs(float((y == 0).mean()) - 0.25)

    n = 100_000
    yield "philox", known, 0.0
    yield "a state repeats", repeated, 0.0
    for dtype in (tl.float32, tl.float64):
        uniform = moments(lambda g, t=dtype: tl.rand(n, dtype=t, device=device, generator=g), 0.5, 12**-0.5)  # type: ignore[misc]
        normal = moments(lambda g, t=dtype: tl.randn(n, dtype=t, device=device, generator=g), 0.0, 1.0)  # type: ignore[misc]
        yield f"rand in {dtype}", uniform, 0.02
        yield f"randn in {dtype}", normal, 0.02
    integers = moments(lambda g: tl.randint(-3, 5, (n,), device=device, generator=g).double(), 0.5, (63 / 12) ** 0.5)
    yield "randint", integers, 0.02
    yield "dropout", dropped, 0.01


def kernels(device: tl.Device) -> Iterator[Case]:
    """Kernels of their own on a GPU: sizes around that of a block, and one that leaves several entries to a thread."""

    def activated(n: int, dtype: Any, approximate: str, where: tl.Device) -> list[np.ndarray]:
        x = tl.tensor(np.random.default_rng(n).standard_normal(n) * 3, dtype, where, requires_grad=True)
        y = F.gelu(x, approximate=approximate)
        (g,) = tl.autograd.grad(y, x, tl.tensor(np.cos(np.arange(n)), dtype, where))
        return [numpy(y), numpy(g)]

    def stepped(shape: tuple[int, ...], dtype: Any, options: dict[str, Any], where: tl.Device) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        p = nn.Parameter(tl.tensor(np.asarray(rng.standard_normal(shape)), dtype, where))
        optimizer = optim.AdamW([p], 0.01, **options) if "maximize" in options else optim.Adam([p], 0.01, **options)
        for _ in range(3):
            p.grad = tl.tensor(np.asarray(rng.standard_normal(shape)), dtype, where)
            optimizer.step()
        state = optimizer.state[p]
        return [numpy(t) for t in (p, state["exp_avg"], state["exp_avg_sq"])]

    def compared(f: Callable[..., list[np.ndarray]], *args: Any) -> Callable[[], float]:
        return lambda: difference(f(*args, device), f(*args, tl.device("cpu")))

    for dtype, limit in ((tl.float64, 1e-12), (tl.float32, 1e-5)):
        for n in (0, 1, 255, 256, 257, 1_200_000):
            for approximate in ("none", "tanh"):
                yield f"gelu {approximate} of {n} in {dtype}", compared(activated, n, dtype, approximate), limit
        for shape in ((), (0, 3), (1,), (257,), (1000, 1200)):
            for options in ({"weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True}):
                yield f"Adam of {shape} in {dtype}, {options}", compared(stepped, shape, dtype, options), limit


# ---- optimizers -----------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD with Nesterov momentum and decay": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam with decay": lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
    "Muon": lambda p: optim.Muon([x for x in p if x.ndim == 2], 0.01),
}


def optimizers(device: tl.Device) -> Iterator[Case]:
    """Ten steps of a small network, with both kinds of clipping."""

    def trained(make: Callable[[Any], optim.Optimizer], where: tl.Device) -> list[np.ndarray]:
        tl.manual_seed(0)  # the values are drawn on the CPU
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2)).to("cpu").double().to(where)
        parameters = list(model.parameters())
        optimizer = make(parameters)
        rng = np.random.default_rng(0)
        for _ in range(10):
            x, y = (tl.tensor(rng.standard_normal((5, n)), device=where) for n in (3, 2))
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            nn.utils.clip_grad_value_(parameters, 0.5)
            nn.utils.clip_grad_norm_(parameters, 0.7)
            optimizer.step()
        return [numpy(p) for p in parameters]

    for name, make in OPTIMIZERS.items():
        yield name, lambda make=make: difference(trained(make, device), trained(make, tl.device("cpu"))), 1e-10  # type: ignore[misc]


# ---- GPT ------------------------------------------------------------------------------------

MODEL = ModelConfig(vocab_size=16, block_size=8, n_layer=2, n_head=2, n_embd=32, bias=True)
OPTIM = OptimConfig(lr=1e-2, min_lr=1e-3, warmup_steps=5)
STEPS = 40


def batches(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets (8, T) of sequences in which each token is one or two above the one before."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        ids = rng.integers(0, MODEL.vocab_size, (8, MODEL.block_size + 1))
        for t in range(1, ids.shape[1]):
            ids[:, t] = (ids[:, t - 1] + rng.integers(1, 3, 8)) % MODEL.vocab_size
        yield ids[:, :-1], ids[:, 1:]


@dataclass
class Run:
    """A model in training."""

    model: GPT
    optimizer: optim.Optimizer
    schedule: optim.lr_scheduler.CosineWithWarmup
    device: tl.Device

    @classmethod
    def start(cls, device: tl.Device, config: ModelConfig = MODEL) -> "Run":
        """The same first weights on every device."""
        default = tl.get_default_device()
        try:
            tl.set_default_device("cpu")
            tl.manual_seed(0)
            model = GPT(config)
        finally:
            tl.set_default_device(default)
        model.to(device)
        optimizer = model.configure_optimizer(OPTIM)
        schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, OPTIM.warmup_steps, STEPS, OPTIM.min_lr)
        return cls(model, optimizer, schedule, device)

    def train(self, data: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[tl.Tensor]:
        """The loss of each step, 0-d, where the model is."""
        losses = []
        for x, y in data:
            self.optimizer.zero_grad()
            _, loss = self.model(tl.tensor(x, device=self.device), tl.tensor(y, device=self.device))
            assert loss is not None
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), OPTIM.grad_clip)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.detach())
        return losses


def curve(losses: Sequence[tl.Tensor]) -> list[np.ndarray]:
    return [numpy(loss) for loss in losses]


def training(device: tl.Device) -> Iterator[Case]:
    """The loss curve of a GPT in float32, with dropout too, and on through a saved state."""

    def compared() -> float:
        found, expected = (curve(Run.start(d).train(batches(STEPS))) for d in (device, tl.device("cpu")))
        assert expected[-1] < 0.6 * expected[0], f"nothing is learnt: {expected[0]} to {expected[-1]}"
        return difference(found, expected)

    def dropped() -> float:
        config = dataclasses.replace(MODEL, dropout=0.1)
        first, second = (curve(Run.start(device, config).train(batches(STEPS))) for _ in range(2))
        assert first[-1] < 0.7 * first[0], f"nothing is learnt: {first[0]} to {first[-1]}"
        return difference(first, second)

    def resumed() -> float:
        whole = Run.start(device)
        expected = curve(whole.train(batches(20)))
        data = batches(20)
        before = Run.start(device)
        found = curve(before.train(itertools.islice(data, 10)))
        after = Run.start(device)
        after.train(batches(3))  # other weights, until the state is loaded
        weights = {name: value.cpu() for name, value in before.model.state_dict().items()}
        after.model.load_state_dict({name: value.to(device) for name, value in weights.items()})
        after.optimizer.load_state_dict(before.optimizer.state_dict())
        after.schedule.load_state_dict(before.schedule.state_dict())
        return difference(found + curve(after.train(data)), expected)

    yield f"{STEPS} steps", compared, 1e-4
    yield f"{STEPS} steps with dropout, twice", dropped, 1e-4
    yield "resumed after 10 of 20 steps", resumed, 1e-4


def generation(device: tl.Device) -> Iterator[Case]:
    """Texts of a trained model: the likeliest, and drawn ones."""
    trained: list[GPT] = []

    def texts(where: tl.Device, temperature: float, top_k: int | None) -> np.ndarray:
        if not trained:
            run = Run.start(tl.device("cpu"))
            run.train(batches(STEPS))
            trained.append(run.model)
        model = trained[0].to(where)
        return np.array(list(generate(model, [1, 2, 3], 40, temperature=temperature, top_k=top_k, seed=7)))

    for name, temperature, top_k in (("likeliest", 0.0, None), ("drawn", 1.0, None), ("drawn from 3", 0.8, 3)):

        def compare(t: float = temperature, k: int | None = top_k) -> float:
            return difference([texts(device, t, k)], [texts(tl.device("cpu"), t, k)])

        yield name, compare, 0.0


CHECKS = [ops, memory, randomness, kernels, optimizers, training, generation]

# ---- running --------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of the cases of one check. ``margin``: the largest difference, as a part of what was allowed."""

    name: str
    cases: int = 0
    margin: float = 0.0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(check: Callable[[tl.Device], Iterator[Case]], device: tl.Device) -> Outcome:
    """Run every case; one that fails does not keep the others from running."""
    outcome, began = Outcome(check.__name__), time.perf_counter()
    for name, compare, limit in check(device):
        outcome.cases += 1
        try:
            found = compare()
        except Exception as error:
            outcome.failures.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if not found <= limit:
            outcome.failures.append(f"{name}: off by {found:.2g}, allowed is {limit:g}")
        if limit:
            outcome.margin = max(outcome.margin, found / limit)
    outcome.seconds = time.perf_counter() - began
    return outcome


def reason_against(device: str) -> tuple[str, int]:
    """Why nothing can be checked, "" if it can, and the exit status for that: 1 if there is a GPU all the same."""
    try:
        tl.zeros(1, device=device)
    except tl.DeviceError as error:
        try:
            import cupy

            return str(error), int(cupy.cuda.runtime.getDeviceCount() > 0)
        except Exception:  # no CuPy, or no driver
            return str(error), 0
    return "", 0


def main(args: Sequence[str] | None = None) -> int:
    """Run all checks, or those that are named, and print a table. Returns the exit status."""
    names = {check.__name__: check for check in CHECKS}
    parser = argparse.ArgumentParser(prog="python -m tests.backends.gpu_check", description="Check on the GPU.")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"one or more of: {', '.join(names)} (default: all)")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # or "strict", without a GPU
    options = parser.parse_args(args)
    if unknown := set(options.checks) - set(names):
        parser.error(f"no check is called {', '.join(sorted(unknown))}; they are {', '.join(names)}")
    if options.device == "strict":
        import tensorlite.testing.strict  # noqa: F401
    reason, status = reason_against(options.device)
    if reason:
        print(f"gpu-check: nothing was checked: {reason}")
        return status
    device = tl.device(options.device)
    print(f"tensorlite {tl.__version__}, NumPy {np.__version__}, {described(device)}\n", flush=True)
    print(f"{'check':<12} {'cases':>6} {'failed':>6} {'margin':>7} {'seconds':>8}", flush=True)
    outcomes = []
    for check in [names[name] for name in options.checks] or CHECKS:
        outcome = run(check, device)
        outcomes.append(outcome)
        print(
            f"{outcome.name:<12} {outcome.cases:>6} {len(outcome.failures):>6} {outcome.margin:>7.1%} "
            f"{outcome.seconds:>8.1f}", flush=True,
        )  # fmt: skip
    failures = [f"{outcome.name}: {line}" for outcome in outcomes for line in outcome.failures]
    for line in failures[:40]:
        print(f"FAILED {line}")
    if len(failures) > 40:
        print(f"... and {len(failures) - 40} more")
    print("gpu-check failed" if failures else f"gpu-check passed on {device}")
    return int(bool(failures))


def described(device: tl.Device) -> str:
    """The device in words."""
    if device.type != "cuda":
        return f"device {device}"
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(device.index or 0)
    return f"CuPy {cupy.__version__}, {properties['name'].decode()}"


if __name__ == "__main__":
    raise SystemExit(main())
