#!/bin/sh
# hypothesis takes one failure for two bugs if its exceptions have other contexts, even after `raise ... from None`.
#
# Expected: a test that always fails by the same line, `raise AssertionError(...) from None`, has one bug. `from None`
# says that the exception which was being handled does not matter, and tracebacks do not show it. The failure shrinks to
# the smallest number that fails.
# Found (hypothesis 6.170.17): the context is a part of a bug's identity, and `from None` does not remove it. It sets
# __suppress_context__, and __context__ stays. Here a check raises at one line for numbers from 10 to 19, and at another
# for larger ones. A function around it adds the number to the message, as any checker with good messages does.
# hypothesis reports two bugs, which have the same type and line. It shrinks one of them to 20 and no further, though 10
# fails, too. If the exception is raised after the except block, it has no context. Then there is one bug, with 10.
# tensorlite's check_grad, check_op, gradtest and programs raise their errors after the except block.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'PYTHON'
import traceback

import hypothesis
from hypothesis import given, settings
from hypothesis import strategies as st


def check(n):
    if n >= 20:
        raise AssertionError("20 or more")
    if n >= 10:
        raise AssertionError("10 or more")


def inside(n):
    try:
        check(n)
    except AssertionError as error:
        raise AssertionError(f"{error}, got {n}") from None


def after(n):
    failure = None
    try:
        check(n)
    except AssertionError as error:
        failure = error
    if failure is not None:
        raise AssertionError(f"{failure}, got {n}")


def failures(f, seed):
    """Return the exceptions that hypothesis reports after shrinking."""

    @hypothesis.seed(seed)
    @settings(database=None)
    @given(st.integers(0, 1000))
    def test(n):
        f(n)

    try:
        test()
    except BaseExceptionGroup as group:
        return group.exceptions
    except AssertionError as error:
        return (error,)


def report(f):
    """Print and return the messages for 20 seeds, and the places where the exceptions were raised."""
    found = [failures(f, seed) for seed in range(20)]
    messages = {tuple(sorted(map(str, errors))) for errors in found}
    places = {(type(e), traceback.extract_tb(e.__traceback__)[-1].lineno) for errors in found for e in errors}
    print(f"    {f.__name__:6}  {len(places)} line  {sorted(messages)}")
    return messages, places


print(f"hypothesis {hypothesis.__version__}, the failures that it reports with 20 seeds")
messages, places = report(inside)
assert messages == {("10 or more, got 10", "20 or more, got 20")}
assert len(places) == 1
messages, places = report(after)
assert messages == {("10 or more, got 10",)}
assert len(places) == 1
PYTHON

"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check hypothesis==6.170.17
"$folder/venv/bin/python" "$folder/look.py"
