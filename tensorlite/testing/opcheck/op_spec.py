"""Descriptions of ops, and the tests that follow from them.

    from tensorlite.testing import OpSpec, error, optest, real, s

    test_softplus = optest(OpSpec(
        "softplus", softplus, samples=[s(real(3, 4)), s(real(), beta=2.0)], reference=numpy_softplus,
        errors=[error(DTypeError, "floating point", ints(5, 3))],
    ))
"""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from ...autograd.gradients import grad as _grad
from ...dtypes import as_dtype, is_floating
from ...errors import DTypeError
from ...pytree import tree_leaves
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..gradcheck.checks import Kinks, check_adjoint, check_grad
from ..gradcheck.function import to_numpy
from ..report import GradientError
from .against_reference import check_against
from .checks import check_op
from .samples import Sample

__all__ = ["Case", "ErrorInput", "OpSpec", "error", "optest"]

# The tolerances of results and gradients in a narrow dtype, relative to the largest of those in float64.
_NARROW: dict[str, float] = {"float32": 2e-5, "float16": 3e-2, "bfloat16": 1e-2}


@cache
def _narrow_dtypes(half: bool) -> dict[np.dtype[Any], float]:
    """Return the narrow dtypes to test in, those of 16 bits only if ``half``, and their tolerances."""
    found = {}
    for name, tolerance in _NARROW.items():
        with suppress(DTypeError):  # bfloat16 without the package ml_dtypes
            dtype = as_dtype(name)
            if half or dtype.itemsize == 4:
                found[dtype] = tolerance
    return found
# The keyword arguments of the checks themselves. An op's argument with one of these names is hidden from them.
_CHECK_OPTIONS = {
    "allow_inconclusive", "atol", "gradients", "kinks", "max_elements", "method", "name", "order", "rtol", "seed",
    "wrt",
}  # fmt: skip


@dataclass(frozen=True)
class ErrorInput:
    """A set of arguments that an op must reject, with an Input for each array, as in a Sample.

    exception: the type of the error that the op must raise. match: a regular expression for some part of its message.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    exception: type[BaseException]
    match: str

    @property
    def sample(self) -> Sample:
        """Return the arguments as a Sample."""
        return Sample(self.args, self.kwargs)


def error(exception: type[BaseException], match: str, *args: Any, **kwargs: Any) -> ErrorInput:
    """Return the ErrorInput of these arguments: ``error(ShapeError, "must broadcast", real(2), real(3))``."""
    return ErrorInput(args, kwargs, exception, match)


@dataclass(frozen=True)
class Case:
    """A single test. ``run()`` raises AssertionError if it fails. ``name`` is its check and sample: "gradients-2"."""

    name: str
    run: Callable[[], object]


@dataclass(frozen=True)
class OpSpec:
    """An op with everything that its tests need.

    name: the name in reports. f: the op, a function of Tensors that returns one Tensor or several.
    samples: the arguments to test it with (:func:`s`).
    order: up to which order to check derivatives, 1, 2 or 3; 0 for results without gradients.
    half: whether to test it in float16, and in bfloat16 if ml_dtypes is installed. kinks: as in ``check_grad``.
    reference: a function of NumPy arrays that returns the right values; None to leave the values unchecked.
    errors: arguments that the op must reject (:func:`error`).
    strategy: a hypothesis strategy for further arguments: tuples, such as those of ``matching(...)``, or Tensors.

    Raises ValueError for an unknown order or kinks, or if there are neither samples nor a strategy.
    """

    name: str
    f: Callable[..., Any]
    samples: Sequence[Sample] = ()
    order: int = 2
    half: bool = True
    kinks: Kinks = "auto"
    reference: Callable[..., Any] | None = None
    errors: Sequence[ErrorInput] = ()
    strategy: Any = None

    def __post_init__(self) -> None:
        if self.order not in (0, 1, 2, 3):
            raise ValueError(f"OpSpec: {self.name}: order must be 0, 1, 2 or 3, got {self.order!r}")
        if self.kinks not in ("auto", "strict", "skip"):
            raise ValueError(f"OpSpec: {self.name}: kinks must be 'auto', 'strict' or 'skip', got {self.kinks!r}")
        if not self.samples and self.strategy is None:
            raise ValueError(f"OpSpec: {self.name}: nothing to test. Pass samples or a strategy")

    @cached_property
    def arrays(self) -> list[list[np.ndarray]]:
        """Return the arrays of each sample, which are always the same for the same name."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [sample.arrays(rng) for sample in self.samples]

    def tensors(self, k: int, dtype: Any = None, device: Any = None) -> list[Tensor]:
        """Return new tensors for the inputs of sample k. Floats have ``dtype``; differentiated inputs require grad."""
        return [
            tensor(a, dtype if is_floating(a.dtype) else None, device, requires_grad=i.grad)
            for a, i in zip(self.arrays[k], self.samples[k].inputs(), strict=True)
        ]

    def results(self, k: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the results of the op for sample k with these tensors as its inputs."""
        args, kwargs = self.samples[k].fill(tensors)
        found: list[Tensor] = tree_leaves(self.f(*args, **kwargs))
        return found

    # ---- cases

    def cases(self, skip: Collection[str] = ()) -> list[Case]:
        """Return a case for each check of each sample and for each error. skip: names of checks to leave out.

        - "values": the results are those of the reference.
        - "gradients": ``check_grad``, up to ``order``.
        - "adjoint": ``check_adjoint``, including func.jvp if ``order`` is 2 or more.
        - "dtypes": in float32, and in float16 and bfloat16 if ``half``, results and gradients keep the dtype and agree
          with float64.
        - "hygiene": ``check_op`` (memory, dtypes, layouts), also for an ``order`` of 0.
        - "error": the op raises the expected error.
        - "drawn": values, gradients and hygiene for arguments drawn from ``strategy``.

        Raises ValueError for an unknown name in ``skip``.
        """
        checks = {"values", "gradients", "adjoint", "hygiene", "dtypes", "error", "drawn"}
        if unknown := set(skip) - checks:
            raise ValueError(f"OpSpec: unknown checks {', '.join(sorted(unknown))}. Use some of {sorted(checks)}")
        found: list[Case] = []
        for k, sample in enumerate(self.samples):
            floats = any(i.grad for i in sample.inputs())
            by_name: dict[str, Callable[[int], object]] = {}
            if self.reference is not None:
                by_name["values"] = self._values
            if floats and self.order:
                by_name |= {"gradients": self._gradients, "adjoint": self._adjoint, "dtypes": self._dtypes}
            if floats:
                by_name["hygiene"] = self._hygiene
            found += [Case(f"{name}-{k}", partial(check, k)) for name, check in by_name.items() if name not in skip]
        if "error" not in skip:
            found += [Case(f"error-{k}", partial(self._error, wrong)) for k, wrong in enumerate(self.errors)]
        if self.strategy is not None and "drawn" not in skip:
            found.append(Case("drawn", self._drawn))
        return found

    def _call(self, k: int, floats_only: bool = False) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Return a function and its arguments for sample k, in which all floating point arrays are differentiated.

        floats_only: whether integers and booleans are constants of the function, so that they keep their dtypes.
        """
        sample, arrays = self.samples[k], self.arrays[k]
        passed = "f" if floats_only else "fiub"
        differentiated = [
            i.grad if is_floating(a.dtype) else a.dtype.kind in passed
            for i, a in zip(sample.inputs(), arrays, strict=True)
        ]
        args, kwargs = sample.fill(arrays)
        if all(differentiated) and not _CHECK_OPTIONS & kwargs.keys():
            return self.f, args, kwargs

        def f(*xs: Tensor) -> Any:
            given = iter(xs)
            dtype = next((x.dtype for x in xs if x.is_floating_point()), None)  # fixed inputs get the same dtype
            tensors = [
                next(given) if w else tensor(a, dtype if is_floating(a.dtype) else None)
                for w, a in zip(differentiated, arrays, strict=True)
            ]
            args, kwargs = sample.fill(tensors)
            return self.f(*args, **kwargs)

        return f, tuple(a for w, a in zip(differentiated, arrays, strict=True) if w), {}

    def _values(self, k: int) -> None:
        assert self.reference is not None
        args, kwargs = self.samples[k].fill(self.arrays[k])
        hidden = {key: kwargs.pop(key) for key in _CHECK_OPTIONS & kwargs.keys()}
        f, reference = (partial(g, **hidden) if hidden else g for g in (self.f, self.reference))
        check_against(f, reference, *args, name=self.name, **kwargs)

    def _gradients(self, k: int) -> None:
        f, args, kwargs = self._call(k)
        check_grad(f, *args, order=self.order, kinks=self.kinks, name=self.name, **kwargs)

    def _adjoint(self, k: int) -> None:
        f, args, kwargs = self._call(k)
        every = range(sum(is_floating(a.dtype) for a in tree_leaves([list(args), kwargs]) if isinstance(a, np.ndarray)))
        check_adjoint(f, *args, wrt=None if self.order > 1 else every, name=self.name, **kwargs)

    def _hygiene(self, k: int) -> None:
        f, args, kwargs = self._call(k, floats_only=True)
        check_op(f, *args, name=self.name, **kwargs)

    def _dtypes(self, k: int) -> None:
        for dtype, tolerance in _narrow_dtypes(self.half).items():
            self._dtype(k, dtype, tolerance)

    def _dtype(self, k: int, dtype: np.dtype[Any], tolerance: float) -> None:
        narrow = self.tensors(k, dtype)
        rounded = [x.detach().to(np.float64) if x.is_floating_point() else x for x in narrow]  # the same numbers
        leaves = [narrow, [y.requires_grad_(x.requires_grad) for x, y in zip(narrow, rounded, strict=True)]]
        results = [self.results(k, xs) for xs in leaves]
        for number, (y, wide) in enumerate(zip(*results, strict=True)):
            expected = dtype if wide.dtype == np.float64 else wide.dtype
            self._require_close(f"result {number}", y, wide, expected, tolerance)
        gradients = []
        for xs, ys in zip(leaves, results, strict=True):
            rng = np.random.default_rng(1)
            kept = [y for y in ys if y.requires_grad]
            cs = [tensor(np.asarray(rng.standard_normal(y.shape)), y.dtype) for y in kept]
            differentiated = [x for x in xs if x.requires_grad]
            gradients.append(_grad(kept, differentiated, cs, allow_unused=True) if kept else [])
        for number, (g, wide) in enumerate(zip(*gradients, strict=True)):
            if g is None or wide is None:
                if g is not wide:
                    raise GradientError(f"{self.name}: input {number} has no gradient in {dtype} or in float64")
                continue
            self._require_close(f"the gradient of input {number}", g, wide, dtype, 2 * tolerance)

    def _require_close(self, what: str, found: Tensor, wide: Tensor, dtype: Any, tolerance: float) -> None:
        if found.dtype != dtype:
            raise GradientError(f"{self.name}: expected {what} to be {dtype}, got {found.dtype}")
        a, b = to_numpy(found).astype(np.float64), to_numpy(wide).astype(np.float64)
        scale = max(1.0, float(abs(b[np.isfinite(b)]).max(initial=0.0)))
        if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=tolerance * scale, equal_nan=True):
            raise GradientError(f"{self.name}: {what} in {dtype} differs from float64\n    {a}\n    {b}")

    def _error(self, wrong: ErrorInput) -> None:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        inputs = zip(wrong.sample.arrays(rng), wrong.sample.inputs(), strict=True)
        args, kwargs = wrong.sample.fill([tensor(a, requires_grad=i.grad) for a, i in inputs])
        expected = f"expected {wrong.exception.__name__} with {wrong.match!r}"
        try:
            result = self.f(*args, **kwargs)
        except Exception as raised:
            if isinstance(raised, wrong.exception) and re.search(wrong.match, str(raised)):
                return
            raise GradientError(f"{self.name}: {expected}, got {type(raised).__name__}: {raised}") from raised
        raise GradientError(f"{self.name}: {expected}, but the op returned {result}")

    def _drawn(self) -> None:
        from ..plugin import chosen_settings, need_hypothesis

        need_hypothesis("OpSpec(strategy=...)")
        from hypothesis import given

        @chosen_settings(None)
        @given(self.strategy)
        def check(drawn: Any) -> None:
            args = drawn if isinstance(drawn, tuple) else (drawn,)
            if self.reference is not None:
                check_against(self.f, self.reference, *args, name=self.name)
            if self.order:
                check_grad(
                    self.f, *args, order=self.order, kinks=self.kinks, name=self.name, allow_inconclusive=True
                )
                check_op(self.f, *args, name=self.name)

        check()


def optest(spec: OpSpec, *, skip: Collection[str] = ()) -> Callable[..., None]:
    """Return a test function for pytest with one test for each of ``spec.cases(skip)``.

        test_softplus = optest(OpSpec("softplus", softplus, samples=[s(real(3, 4))]))

    makes the tests ``test_softplus[gradients-0]`` and so on. ``test_softplus()`` runs all cases, also without pytest.
    Raises ValueError for an unknown name in ``skip``.
    """
    cases = spec.cases(skip)

    def test(case: Case | None = None) -> None:
        for one in cases if case is None else [case]:
            one.run()

    test.__name__ = f"test_{spec.name}"
    test.__doc__ = f"Run all checks of the OpSpec of {spec.name}."
    try:
        import pytest
    except ImportError:
        return test
    # pytest does not parametrize an argument with a default, so it sees none.
    test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("case", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])(test)
