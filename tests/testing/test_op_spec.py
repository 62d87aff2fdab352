"""Tests of OpSpec, optest and samples."""
import sys

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite import ShapeError
from tensorlite.testing import (
    GradientError,
    Input,
    OpSpec,
    Sample,
    bools,
    distinct,
    error,
    fixed,
    given,
    ints,
    matching,
    numpy_op,
    optest,
    positive,
    real,
    s,
    unit,
    whole,
)

RNG = np.random.default_rng(0)


@tl.op(lambda g, x, beta: g * tl.sigmoid(x * beta), dtypes="floating")
def softplus(xp, x, beta=1.0):
    return xp.log1p(xp.exp(x * beta)) / beta


def numpy_softplus(x, beta=1.0):
    return np.log(1 + np.exp(beta * x)) / beta


def failures(spec: OpSpec, **options) -> set[str]:
    """Return the names of the cases that fail."""
    found = set()
    for case in spec.cases(**options):
        try:
            case.run()
        except GradientError:
            found.add(case.name)
    return found


# ---- samples --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "low", "high"), [(real, -2.9, 2.9), (positive, 0.6, 2.4), (unit, -0.9, 0.9), (whole, -3.02, 3.02)]
)
def test_domains_stay_within_their_bounds(domain, low, high):
    x = domain(40, 50).array(RNG)
    assert x.shape == (40, 50)
    assert x.dtype == np.float64
    assert low - 1e-12 <= x.min() < low + 0.1
    assert high - 0.1 < x.max() <= high + 1e-12


@pytest.mark.parametrize("domain", [real, positive, unit])
def test_domains_avoid_multiples_of_one_half(domain):
    x = 2 * domain(2000).array(RNG)
    assert abs(x - np.round(x)).min() >= 0.2 - 1e-12


def test_whole_never_equals_real_and_quotients_are_not_integers():
    x, y = np.meshgrid(real(300).array(RNG), whole(300).array(RNG))
    assert (x != y).all()
    q = x / y
    assert abs(q - np.round(q)).min() > 0


def test_distinct_numbers_are_a_quarter_apart():
    x = distinct(5, 4).array(RNG)
    np.testing.assert_allclose(np.diff(np.sort(x.ravel())), 0.25)
    assert abs(x.mean()) < 0.25


def test_integers_booleans_and_given_values():
    assert set(ints(3, 100).array(RNG).tolist()) == {0, 1, 2}
    assert set(bools(100).array(RNG).tolist()) == {True, False}
    values = given([[1.0, 2.0]])
    assert values.shape == (1, 2)
    assert values.array(RNG).tolist() == [[1.0, 2.0]]
    assert values.grad
    assert not any(i.grad for i in (given([1]), given([True]), ints(2, 2), bools(2), fixed(values)))
    values.array(RNG)[0, 0] = 7.0
    assert values.array(RNG)[0, 0] == 1.0


@pytest.mark.parametrize("domain", [real, positive, unit, whole, distinct])
def test_0d_inputs_are_arrays(domain):
    assert isinstance(domain().array(RNG), np.ndarray)


def test_an_input_checks_the_shape_of_its_array():
    assert Input((2,), lambda rng, shape: rng.gamma(2.0, size=shape)).array(RNG).min() > 0
    with pytest.raises(ValueError, match=r"expected draw\(rng, \(2,\)\) to return that shape, got \(3,\)"):
        Input((2,), lambda rng, shape: np.zeros(3)).array(RNG)


def test_a_sample_fills_its_inputs_wherever_they_are():
    sample = s([real(2), real(3)], 1, {"mask": bools(2)}, index=(slice(None), ints(2, 4)))
    assert [i.shape for i in sample.inputs()] == [(2,), (3,), (2,), (4,)]
    args, kwargs = sample.fill("abcd")
    assert args == (["a", "b"], 1, {"mask": "c"})
    assert kwargs == {"index": (slice(None), "d")}


def test_the_arrays_of_a_spec_are_always_the_same():
    first, second = (OpSpec("exp", tl.exp, [s(real(2, 3)), s(real())]).arrays for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    other = OpSpec("sin", tl.sin, [s(real(2, 3))]).arrays
    assert (other[0][0] != first[0][0]).any()


# ---- wrong ops ------------------------------------------------------------------------------

SAMPLES = [s(real(2, 3)), s(real(), beta=2.0)]
ERROR = error(tl.DTypeError, "expected floating point", ints(5, 3))
test_softplus = optest(OpSpec("softplus", softplus, SAMPLES, reference=numpy_softplus, errors=[ERROR]))


def test_cases_are_named_after_checks():
    spec = OpSpec("softplus", softplus, SAMPLES, reference=numpy_softplus, errors=[ERROR])
    checks = ("values", "gradients", "adjoint", "dtypes", "hygiene")
    assert [case.name for case in spec.cases()] == [f"{c}-{k}" for k in (0, 1) for c in checks] + ["error-0"]
    assert [case.name for case in spec.cases({"values", "dtypes", "error", "hygiene"})] == [
        "gradients-0", "adjoint-0", "gradients-1", "adjoint-1",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"unknown checks speed\. Use some of"):
        spec.cases(["speed"])


def test_wrong_values_are_found():
    spec = OpSpec("softplus", softplus, SAMPLES, reference=lambda x, beta=1.0: numpy_softplus(x))
    assert failures(spec) == {"values-1"}


def test_wrong_gradients_are_found():
    @tl.op(lambda g, x: g * tl.sigmoid(x))
    def forgets_beta(xp, x, beta=1.0):
        return xp.log1p(xp.exp(x * beta)) / beta

    assert failures(OpSpec("forgets_beta", forgets_beta, SAMPLES)) == {"gradients-1", "adjoint-1"}


def test_in_place_changes_of_arguments_are_found():
    def greedy(x):
        x.array += 1
        return x * 1

    assert "hygiene-0" in failures(OpSpec("greedy", greedy, [s(real(2))]))


def test_lost_dtypes_are_found():
    def wide(x):
        return x * tl.tensor(np.float64(2.0) * np.ones(3))

    assert failures(OpSpec("wide", wide, [s(real(3))])) == {"hygiene-0", "dtypes-0"}


def test_float16_is_not_tested_without_half():
    def overflows(x):
        return (x * 1e5).sum() / 1e5

    samples = [s(positive(4))]
    with np.errstate(over="ignore"):
        assert failures(OpSpec("overflows", overflows, samples)) == {"dtypes-0"}
    assert failures(OpSpec("overflows", overflows, samples, half=False)) == set()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (error(ShapeError, "broadcast", real(2), real(2)), "but the op returned tensor"),
        (error(TypeError, "broadcast", real(2), real(3)), r"expected TypeError with 'broadcast', got ShapeError: add"),
        (error(ShapeError, "^add: never", real(2), real(3)), "with '\\^add: never', got ShapeError: add"),
    ],
    ids=["none", "another", "another message"],
)
def test_wrong_errors_are_found(wrong, message):
    (case,) = OpSpec("add", tl.add, [s(real(2), real(2))], order=0, errors=[wrong]).cases({"hygiene"})
    with pytest.raises(GradientError, match=message):
        case.run()


def test_drawn_arguments_are_checked():
    right = OpSpec("softplus", softplus, reference=numpy_softplus, strategy=matching("(n)", elements="moderate"))
    assert [case.name for case in right.cases()] == ["drawn"]
    assert failures(right) == set()
    wrong = OpSpec(
        "relu", tl.relu, order=0, reference=lambda x: np.where(x == 2, 0, np.maximum(x, 0)),
        strategy=st.sampled_from([1.0, 2.0]).map(lambda v: tl.tensor([v], dtype=tl.float64)),
    )  # fmt: skip
    assert failures(wrong) == {"drawn"}


# ---- kinds of ops ---------------------------------------------------------------------------


def test_fixed_inputs_are_not_differentiated_and_keep_their_dtype():
    seen = []

    def masked(x, mask, index):
        seen.append((mask.requires_grad, mask.dtype == x.dtype or x.dtype == np.complex128, index.dtype))
        return (x * mask)[index]

    mask = fixed(given([1.0, 0.0, 2.0]))
    assert failures(OpSpec("masked", masked, [s(real(3), mask, given([0, 2]))])) == set()
    assert set(seen) == {(False, True, np.dtype("int64"))}


def test_arguments_may_have_the_names_of_check_options():
    def f(x, *, name="", order=1, seed=0):
        assert name == "mine"
        return x * order + seed

    def reference(x, *, name, order, seed):
        return x * order + seed

    spec = OpSpec("f", f, [s(real(2), name="mine", order=3, seed=5)], reference=reference)
    assert failures(spec) == set()


def test_an_op_of_order_1():
    f = numpy_op(lambda x: np.sin(x), lambda g, x: g * np.cos(x))
    assert failures(OpSpec("sin", f, [s(real(3))], order=1, reference=np.sin), skip={"dtypes", "hygiene"}) == set()


def test_an_op_without_gradients():
    spec = OpSpec("argmax", tl.argmax, [s(distinct(2, 3), 1), s(ints(4, 3))], order=0, reference=np.argmax)
    assert [case.name for case in spec.cases()] == ["values-0", "hygiene-0", "values-1"]
    assert failures(spec) == set()


def test_several_results():
    spec = OpSpec("sort", tl.sort, [s(distinct(4))], reference=lambda x: (np.sort(x), np.argsort(x)))
    assert failures(spec) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 4}, "f: order must be 0, 1, 2 or 3, got 4"),
        ({"kinks": "hope"}, "kinks must be 'auto', 'strict' or 'skip', got 'hope'"),
        ({"samples": []}, "nothing to test. Pass samples or a strategy"),
    ],
)
def test_invalid_specs_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        OpSpec("f", tl.exp, **{"samples": [s(real(2))], **options})


# ---- optest ---------------------------------------------------------------------------------

MODULE = """
import tensorlite as tl
from tensorlite.testing import OpSpec, optest, real, s

test_right = optest(OpSpec("right", tl.exp, [s(real(2))]))
test_wrong = optest(OpSpec("wrong", tl.exp, [s(real(2)), s(real())], reference=tl.sin), skip={"dtypes", "hygiene"})
"""


def test_pytest_runs_every_case_by_its_name(tmp_path):
    from subprocess import run

    (tmp_path / "test_user.py").write_text(MODULE.replace("tl.sin", "__import__('numpy').sin"))
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "test_user.py"]
    found = run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "PASSED test_user.py::test_right[gradients-0]" in found
    assert "FAILED test_user.py::test_wrong[values-1]" in found
    assert "2 failed, 8 passed" in found


def test_without_pytest_optest_returns_a_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    optest(OpSpec("exp", tl.exp, [s(real(2))], reference=np.exp))()
    with pytest.raises(GradientError, match="exp: the result"):
        optest(OpSpec("exp", tl.exp, [s(real(2))], reference=np.sin))()


def test_a_sample_without_inputs_has_no_gradient_cases():
    spec = OpSpec("exp", tl.exp, [Sample((tl.tensor([1.0]),), {})], reference=np.exp)
    assert [case.name for case in spec.cases()] == ["values-0"]
    assert failures(spec) == set()
