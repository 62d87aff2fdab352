"""Tests of gradtest, of its messages, of the pytest plugin, and of tensorlite.testing without hypothesis."""
import math
import os
import re
import subprocess
import sys
import textwrap
import traceback
import unittest

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import reproduce_failure, seed
from hypothesis import strategies as st
from hypothesis.errors import DidNotReproduce

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.testing import GradientError, axes, check_grad, elements, gradtest, indices, tie_free
from tensorlite.testing.plugin import PROFILES, profile_name

# ---- ops with a mistake each ----------------------------------------------------------------


@tl.op(lambda g, y: g * y, lambda g, x: 2 * g * x)
def twice_too_much(xp, x, y):
    return x * y


@tl.op(lambda g, x: g * (x >= 0.5))
def late_relu(xp, x):
    return xp.maximum(x, 0)


@tl.op(lambda g, x: g * 0 + g.sum(0))
def mixes_rows(xp, x):
    return x * 1.0


@tl.op(lambda g, x: g * x * 3.0)
def wrong_far_out(xp, x):
    return (1.5 + (abs(x) > 100).astype(x.dtype)) * x * x


@pytest.fixture(autouse=True)
def _the_same_examples_every_time(monkeypatch):
    monkeypatch.setenv("TENSORLITE_TESTING_PROFILE", "ci")


def failure_of(test, *args):
    with pytest.raises(GradientError) as error:
        test(*args)
    return error.value


# ---- right ops ------------------------------------------------------------------------------


@gradtest("(...,m),(m)->(...,m)")
def test_product(x, y):
    """Check a regression: the gradient of an empty y was an error."""
    return x * y


@gradtest("(m,k),(k,n)->(m,n)", max_examples=30)
def test_two_inputs(x, y):
    assert x.shape[1] == y.shape[0]
    return x @ y


@gradtest("(2,3)", index=indices((2, 3)), order=1)
def test_keyword_strategies(x, *, index):
    return x[index]


@gradtest("(m,n>=1)->(m)", elements=tie_free(-1), max_examples=50)
def test_tie_free_inputs(x):
    return tl.amax(x, -1)


@gradtest("(4,n),(...)->(...,n)", elements=["real", elements("int", below=4)], max_examples=50)
def test_integer_inputs_are_passed_on(x, ids):
    assert ids.dtype == tl.int64
    return x[ids]


@gradtest("(...),(4,n)->(...,n)", elements=[elements("int", below=4), "real"], max_examples=50)
def test_embedding(ids, weight):
    """Check a regression: the gradient of rows without entries was an error."""
    return F.embedding(ids, weight)


@gradtest("(m,n)->(m,n),(m,n)", elements=["nonzero"], max_examples=30)
def test_several_results(x):
    return x * x, 1 / x


@gradtest("(m,n)->(m,n)", elements=tie_free(), order=0, max_examples=30)
def test_results_without_gradients(x):
    return tl.argsort(x, -1)


class TestMethods:
    factor = 3.0

    @gradtest("(n)->(n)", max_examples=20)
    def test_method(self, x):
        return self.factor * x


class TestUnittest(unittest.TestCase):
    @gradtest("(n)->(n)", max_examples=20)
    def test_method(self, x):
        self.assertIsInstance(x, tl.Tensor)  # noqa: PT009
        return 2.0 * x


def test_the_test_can_be_called_and_keeps_the_function():
    seen = []

    @gradtest("(m)->(m)", max_examples=150)
    def doubled(x):
        """Twice x."""
        seen.append(x.shape)
        return 2.0 * x

    assert doubled() is None
    assert {shape[0] for shape in seen} >= {0, 1, 2, 3}
    assert (doubled.__name__, doubled.__doc__, doubled.__module__) == ("doubled", "Twice x.", __name__)
    assert check_grad(doubled.f, np.array([1.0])).checked > 0


def test_every_example_has_the_declared_shapes():
    found = set()

    @gradtest("(...,m,2),(m)", max_examples=50)
    def f(x, y):
        found.add((x.shape, y.shape))
        return x * y.unsqueeze(-1)

    f()
    assert all(a[-1] == 2 and a[-2] == b[0] for a, b in found)
    assert {len(a) for a, _ in found} == {2, 3, 4}


def test_the_number_of_examples():
    calls = []

    @gradtest("()", max_examples=7, k=st.integers(0, 10**9))
    def f(x, k):
        calls.append(k)
        return x * 1.0

    f()
    assert 3 <= len(set(calls)) <= 7


# ---- wrong ops ------------------------------------------------------------------------------


def sizes(message):
    """Return the numbers of entries of the inputs in a report."""
    shapes = re.findall(r"^ +x +float64 \(([\d, ]*)\)", message, re.MULTILINE)
    return [math.prod(map(int, re.findall(r"\d+", shape))) for shape in shapes]


@pytest.mark.parametrize(
    ("f", "signature", "largest"),
    [
        (twice_too_much, "(...,n),(n)", 1),
        (late_relu, "(...,n)", 1),
        (mixes_rows, "(m,n)", 2),
        (wrong_far_out, "(m,n)", 1),
    ],
)
def test_a_wrong_op_shrinks_to_an_entry_or_two(f, signature, largest):
    @gradtest(signature, max_examples=300)
    def wrong(x, *more):
        return f(x, *more)

    failure = failure_of(wrong)
    (size,) = sizes(str(failure))
    assert 1 <= size <= largest


def test_the_error_has_no_hypothesis_output():
    @gradtest("(m,n),(n)->(m,n)")
    def wrong(x, y):
        return twice_too_much(x, y)

    failure = failure_of(wrong)
    text = "".join(traceback.format_exception(failure))
    assert "wrong.f: the gradient of y is wrong" in text
    assert len(text.splitlines()) < 35
    assert "hypothesis" not in text
    assert text.count("check_grad(") == 1
    x, y, number = re.search(r"f, np.array\(\[\[(.+)\]\]\), np.array\(\[(.+)\]\), seed=(\d+)\)", text).groups()
    with pytest.raises(GradientError, match="the gradient of y is wrong"):
        check_grad(wrong.f, np.array([[float(x)]]), np.array([float(y)]), seed=int(number))


def test_the_traceback_ends_at_the_line_of_the_test():
    line = sys._getframe().f_lineno + 2

    @gradtest("(n)->(n)", max_examples=300)
    def wrong(x):
        return late_relu(x)

    last = traceback.extract_tb(failure_of(wrong).__traceback__)[-1]
    assert (last.filename, last.lineno, last.name) == (__file__, line, "wrong")


def test_a_wrong_shape():
    @gradtest("(m,n)->(n)")
    def wrong(x):
        return x.sum(1)

    message = str(failure_of(wrong))
    assert "wrong: by '(m,n)->(n)', expected results of shape (2,) for inputs of (1, 2), got (1,)" in message
    assert message.endswith("wrong.f(tl.tensor([[0.0, 0.0]], dtype=tl.float64))")


def test_a_result_that_is_not_a_tensor():
    @gradtest("(n)->(n)")
    def wrong(x):
        return x.numpy()

    with pytest.raises(TypeError, match="wrong: expected Tensors as results, got ndarray"):
        wrong()


def test_an_error_within_the_op_comes_with_the_example():
    @gradtest("(m,n)", dim=axes(2))
    def wrong(x, dim):
        if x.shape[1] > 1 and dim in (1, -1):
            raise RuntimeError("no")
        return x.sum(dim)

    with pytest.raises(RuntimeError) as error:
        wrong()
    text = "".join(traceback.format_exception(error.value))
    assert re.search(r"example=\(tl\.\w+\(.*, dtype=tl\.float64\), dim=1\)", text)
    assert "hypothesis/" not in text
    assert len(text.splitlines()) < 40


def test_a_large_example_is_not_printed():
    @gradtest("(6,6)", elements="any", order=0)
    def wrong(x):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError) as error:
        wrong()
    assert "example=(<float64 (6, 6)>)" in "".join(traceback.format_exception(error.value))


def test_a_test_that_checks_nothing_fails():
    @gradtest("(n>=1)", elements=st.just(0.0), order=1, kinks="skip", max_examples=20)
    def hollow(x):
        return x.abs()

    failure = failure_of(hollow)
    assert re.search(r"hollow: no derivative could be checked in \d+ examples: .* at a kink", str(failure))
    assert failure.report.checked == 0
    assert failure.report.kinks > 0


def test_a_method_fails_under_its_own_name():
    class Case:
        @gradtest("(n)", max_examples=300)
        def test_it(self, x):
            return late_relu(x)

    message = str(failure_of(Case().test_it))
    assert message.startswith("Case.test_it.f: the gradient of x is wrong")


# ---- wrong arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gradtest("(m),(n)")(lambda x: x), ValueError, r"'\(m\),\(n\)' has 2 inputs, but <lambda> takes 1: x"),
        (lambda: gradtest("(m)")(lambda x, y: x), ValueError, r"has 1 input, but <lambda> takes 2: x, y"),
        (lambda: gradtest("(m)")(lambda: None), ValueError, r"has 1 input, but <lambda> takes 0: none"),
        (lambda: gradtest("(m"), ValueError, r"signature '\(m': expected brackets"),
        (lambda: gradtest("(m),(n)", elements=["real"]), ValueError, "gradtest: elements has 1 kinds for the 2 inputs"),
        (lambda: gradtest("(m)", elements="reel"), ValueError, "unknown kind 'reel'"),
        (lambda: gradtest("(m)", elements="int"), ValueError, "no input of '.m.' is a floating point one"),
        (lambda: gradtest("(m)", order=4), ValueError, "order must be 0, 1, 2 or 3, got 4"),
        (lambda: gradtest("(m)", dim=1), TypeError, r"dim must be a strategy, got int; st.just\(\) makes one"),
        (lambda: gradtest("(m)", dim=axes(1))(lambda x: x), TypeError, "<lambda> has no parameter 'dim'"),
        (lambda: gradtest("(m)")(lambda x, *, dim: x), TypeError, r"<lambda> needs the argument 'dim'\. Pass a strat"),
    ],
)
def test_wrong_arguments_are_errors_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- decorators of hypothesis and pytest, profiles, options ---------------------------------


def test_decorators_of_hypothesis_work_above_gradtest():
    found = []

    def draw():
        @seed(12)
        @gradtest("(3)", max_examples=5, order=0)
        def f(x):
            found.append(x.tolist())
            return x * 1.0

        f()
        return [found.pop(0) for _ in range(len(found))]

    assert draw() == draw()

    @reproduce_failure("0.0.0", b"AAAA")
    @gradtest("(3)")
    def g(x):
        return x * 1.0

    with pytest.raises(Exception, match=r"reproduce|0\.0\.0") as error:
        g()
    assert not isinstance(error.value, GradientError | DidNotReproduce | AssertionError)


def test_pytest_marks_work_below_gradtest():
    @gradtest("(n)")
    @pytest.mark.usefixtures("tmp_path")
    def f(x):
        return x * 1.0

    assert [mark.name for mark in f.pytestmark] == ["usefixtures"]


def test_profiles_by_environment(monkeypatch):
    monkeypatch.delenv("TENSORLITE_TESTING_PROFILE", raising=False)
    monkeypatch.delenv("CI", raising=False)
    assert profile_name() == "dev"
    monkeypatch.setenv("CI", "true")
    assert profile_name() == "ci"
    monkeypatch.setenv("TENSORLITE_TESTING_PROFILE", "nightly")
    assert profile_name() == "nightly"
    monkeypatch.setenv("TENSORLITE_TESTING_PROFILE", "daily")
    with pytest.raises(ValueError, match=r"PROFILE=daily: unknown profile\. Use one of dev, ci, nightly"):
        gradtest("(n)")(lambda x: x)


def python(*args, folder, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in {"CI", "TENSORLITE_TESTING_PROFILE", "PYTEST_ADDOPTS"}}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env={**clean, **environment}, capture_output=True, text=True, timeout=120
    )


TESTS = """
import tensorlite as tl
from hypothesis import strategies as st
from tensorlite.testing import gradtest

seen = []

@gradtest("(2)->(2)", elements="moderate", order=1, k=st.integers(0, 10**9))
def test_square(x, k):
    seen.append(k)
    return x * x

@gradtest("(2)", order=1, kinks="skip")
def test_abs(x):
    return x.abs()

def test_count():
    print("EXAMPLES", len(set(seen)), hash(tuple(seen)))
"""


def run_pytest(folder, *args, tests=TESTS, **environment):
    (folder / "test_it.py").write_text(textwrap.dedent(tests), "utf-8")
    plugin = ["-p", "tensorlite.testing.plugin"] if not installed() else []
    return python("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *plugin, *args, folder=folder, **environment)


def installed():
    from importlib.metadata import entry_points

    return any(point.value == "tensorlite.testing.plugin" for point in entry_points(group="pytest11"))


def test_a_run_prints_its_totals(tmp_path):
    done = run_pytest(tmp_path, "--gradtest-examples", "30", "--junitxml", "out.xml", CI="1")
    assert done.returncode == 0, done.stdout
    pattern = r"^gradtest: ([\d,]+) derivatives checked, ([\d,]+) inconclusive, ([\d,]+) on a kink$"
    counts = re.search(pattern, done.stdout, re.MULTILINE).groups()
    checked, _, kinks = (int(text.replace(",", "")) for text in counts)
    assert checked > 100
    assert kinks > 0
    in_junit = re.findall(r'name="gradtest_checked" value="(\d+)"', (tmp_path / "out.xml").read_text("utf-8"))
    assert sum(map(int, in_junit)) == checked


def test_a_run_without_gradtests_has_no_line_and_no_hypothesis(tmp_path):
    tests = "import sys\ndef test(): assert not {'hypothesis', 'tensorlite.testing.gradtests'} & set(sys.modules)"
    done = run_pytest(tmp_path, "-p", "no:hypothesispytest", tests=tests)
    assert done.returncode == 0, done.stdout
    assert "gradtest" not in done.stdout


def test_the_plugin_imports_neither_pytest_nor_hypothesis(tmp_path):
    script = "import sys, tensorlite.testing.plugin; print({'pytest', 'hypothesis'} & set(sys.modules))"
    assert python("-c", script, folder=tmp_path).stdout.strip() == "set()"


def examples(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"EXAMPLES (\d+) (-?\d+)", done.stdout).groups()


def test_options_choose_the_examples(tmp_path):
    def ran(*args, **environment):
        return examples(run_pytest(tmp_path, "-k", "square or count", *args, PYTHONHASHSEED="0", **environment))

    assert 3 <= int(ran("--gradtest-examples", "9", CI="true")[0]) <= 9
    same = ran("--gradtest-profile", "ci", TENSORLITE_TESTING_PROFILE="nightly")
    assert 25 < int(same[0]) <= 100  # different ones of 100; hypothesis draws some again
    assert same == ran(CI="true")
    assert same != ran()
    assert PROFILES["nightly"]["max_examples"] == 2000


@pytest.mark.parametrize("option", [("--gradtest-profile", "daily"), ("--gradtest-examples", "0")])
def test_invalid_options_are_rejected(tmp_path, option):
    done = run_pytest(tmp_path, *option)
    assert done.returncode == 4
    assert option[0] in done.stderr


def test_a_failure_is_one_short_report(tmp_path):
    tests = """
    import tensorlite as tl
    from tensorlite.testing import gradtest

    wrong = tl.op(lambda g, x: g)(lambda xp, x: 2.0 * x)

    @gradtest("(m,n)->(m,n)")
    def test_wrong(x):
        return wrong(x)
    """
    done = run_pytest(tmp_path, tests=tests)
    assert done.returncode == 1
    shown = done.stdout.partition("FAILURES")[2].partition("short test summary")[0]
    assert '>   @gradtest("(m,n)->(m,n)")' in shown
    assert re.search(r"^E +check_grad\(test_wrong\.f, np\.array\(\[\[0\.0\]\]\), seed=0\)$", shown, re.MULTILINE)
    assert "test_it.py:7: GradientError" in shown
    assert len(shown.splitlines()) < 30
    assert "gradtests.py" not in shown
    assert "Failing test case" not in shown


# ---- without hypothesis ---------------------------------------------------------------------


def test_without_hypothesis_checks_work_and_strategies_are_an_error(tmp_path):
    script = """
    import sys
    sys.modules["hypothesis"] = None
    import numpy as np
    import tensorlite as tl
    from tensorlite.testing import check_grad, check_op, register_profiles
    assert check_grad(tl.sin, np.array([1.0])).checked
    for name in ("gradtest", "tensors", "matching"):
        try:
            getattr(__import__("tensorlite.testing").testing, name)
        except ImportError as error:
            print(error)
    try:
        from tensorlite.testing import nothing
    except ImportError as error:
        print(error)
    """
    done = python("-c", textwrap.dedent(script), folder=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 4
    for name, line in zip(("gradtest", "tensors", "matching"), lines):
        assert line.startswith(f"tensorlite.testing.{name} needs hypothesis")
        assert line.endswith("pip install 'tensorlite[testing]'")
    assert "cannot import name 'nothing'" in lines[3]
