"""Tests of programs: right ops pass, a wrong op is found and named, and programs are drawn as requested."""
import re

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import Phase, find, given, settings
from hypothesis.errors import NoSuchExample

import tensorlite as tl
from tensorlite.testing import GradientError, Program, programs

FEW = settings(max_examples=60, deadline=None, database=None, derandomize=True)
MANY = settings(FEW, max_examples=400)


@tl.op(lambda g, y: g * y, lambda g, x: 1.01 * g * x)
def bad_mul(xp, x, y):
    return x * y


@tl.op(lambda g, x: g * tl.cos(x.detach() if isinstance(x, tl.Tensor) else x))
def sin_once(xp, x):
    return xp.sin(x)


@tl.op(lambda g, out: g * (1.0 - out * out))
def good_tanh(xp, x):
    return xp.tanh(x)


def failure(strategy, **options):
    """Return the smallest program that fails, and the message of its check."""

    def fails(program):
        try:
            program.check(**options)
        except GradientError:
            return True
        return False

    # The phase that explains a failure takes longer than to find and to shrink it.
    program = find(strategy, fails, settings=settings(MANY, phases=[Phase.generate, Phase.shrink]))
    with pytest.raises(GradientError) as error:
        program.check(**options)
    return program, str(error.value)


# ---- the library's own ops ------------------------------------------------------------------


@given(programs(max_ops=8))
@settings(max_examples=400)
def test_built_in_ops(program):
    """Check views, indexing, ops with several results and in-place ops in any order."""
    program.check()


def test_every_built_in_op_is_used_in_some_program():
    seen = set()

    @given(programs(max_ops=12))
    @settings(MANY, max_examples=600)
    def collect(program):
        seen.update(step.op.source for step in program._steps)

    collect()
    from tensorlite.testing.random_programs.ops import BUILT_IN, IN_PLACE

    assert {*BUILT_IN, *IN_PLACE} - seen == set()


# ---- a wrong op -----------------------------------------------------------------------------


def test_a_wrong_op_is_shrunk_to_and_named():
    program, message = failure(programs(ops=[bad_mul], max_ops=8))
    assert program.ops == ["bad_mul"]
    assert sum(a.size for a in program.inputs) <= 2
    assert message.startswith("bad_mul fails: t")
    assert re.search(r"^    def program\(t0.*\):\n        t\d = bad_mul\(", message, re.MULTILINE)
    assert "the gradient of t" in message
    assert len(message.splitlines()) < 30


def test_a_wrong_second_order_is_found():
    program, message = failure(programs(ops=[sin_once]))
    assert program.ops == ["sin_once"]
    assert "sin_once fails" in message


def test_a_wrong_second_order_is_not_found_with_order_1():
    with pytest.raises(NoSuchExample):
        failure(programs(ops={"sin_once": (sin_once, "(n)")}, built_in=False, max_ops=1), order=1)


def test_a_right_op_among_others_passes():
    @given(programs(ops=[good_tanh]))
    @FEW
    def check(program):
        program.check()

    check()


def test_an_op_that_is_wrong_only_for_results_of_another():
    """Check an op that is wrong only for rows longer than any input, which a concatenation makes."""

    @tl.op(lambda g, x: g * (1.0 if x.shape[-1] <= 3 else 1.5))
    def short_rows_only(xp, x):
        return x * 1.0

    own = {"short_rows_only": (short_rows_only, "(...,n)"), "twice": (lambda x: tl.cat([x, x], -1), "(...,n)")}
    program, message = failure(programs(ops=own, built_in=False, inputs="(2)", max_ops=4))
    assert program.ops == ["twice", "short_rows_only"]
    assert message.startswith("short_rows_only also fails alone, at its values in the program: t")


def test_an_op_that_keeps_its_results_is_found():
    kept = []

    def hoards(x):
        y = tl.tanh(x)
        kept.append(y)
        return y

    _, message = failure(programs(ops=[hoards]))
    assert "memory is not freed when the results are deleted. Still in use: " in message


def test_an_error_of_an_op_comes_with_the_program():
    def raises(x):
        raise ZeroDivisionError("not today")

    @given(programs(ops=[raises]))
    @FEW
    def check(program):
        program.check()

    with pytest.raises(ZeroDivisionError) as error:
        check()
    assert "in the program" in error.value.__notes__[0]
    assert "raises(t" in error.value.__notes__[0]


# ---- drawn programs -------------------------------------------------------------------------


def test_the_source_of_a_program_computes_the_same():
    few = programs(ops={"mul": (tl.mul, 2), "tanh": (tl.tanh, 1)}, built_in=False)
    program = find(few, lambda p: p.ops == ["mul", "tanh"] and len(p.inputs) == 2, settings=MANY)
    assert isinstance(program, Program)
    names = {f"t{i}": tl.tensor(a) for i, a in enumerate(program.inputs)}
    scope = {"mul": tl.mul, "tanh": tl.tanh}
    exec(program.source, scope)  # noqa: S102 - it was made here, from names of ops
    for found, expected in zip(program(*names.values()), scope["program"](*names.values()), strict=True):
        assert found.tolist() == expected.tolist()
    assert repr(program).startswith(program.source + "\n# t0: float64 (")


def test_inputs_and_calls_are_as_requested():
    @given(programs(ops={"add3({}, {}, c=3)": (lambda x, y: x + y + 3.0, 2)}, built_in=False, inputs=[(2, 3), (3,)]))
    @FEW
    def check(program):
        assert {a.shape for a in program.inputs} <= {(2, 3), (3,)}
        assert all(line.strip().startswith("t") for line in program.source.splitlines()[1:-1])
        assert all("c=3" in line for line in program.source.splitlines()[1:-1])

    check()


def test_a_program_without_steps_passes():
    assert Program([np.ones(2)], []).check().checked == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": bad_mul}, r"a list or dict of functions, got one function. Pass \[f\]"),
        ({"ops": ["mul"]}, "to be a function, got str"),
        ({"ops": [lambda *xs: xs[0]]}, r"cannot tell how many tensors .* takes. Pass"),
        ({"ops": {"f": (bad_mul, 0)}}, "expected the number of operands of op 'f' to be 1 or more, got 0"),
        ({"ops": {"f({})": (bad_mul, 2)}}, r"expected one \{\} in 'f\(\{\}\)' for each of 2 operands"),
        ({"built_in": False}, "leaves no ops"),
        ({"max_ops": 0}, "expected max_ops to be an int of 1 or more, got 0"),
    ],
)
def test_wrong_arguments_are_rejected(options, message):
    with pytest.raises((TypeError, ValueError), match=f"programs: .*{message}"):
        programs(**options).example()


def test_an_op_that_can_never_be_used_is_an_error():
    @given(programs(ops={"huge": (lambda x: x + 1e9, 1)}))
    @settings(MANY, max_examples=1000)
    def check(program):
        pass

    with pytest.raises(ValueError, match=r"huge was tried \d+ times and could never be used: .*above 32"):
        check()
