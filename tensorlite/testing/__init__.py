"""Property-based tests of gradients, for the ops of this library and of any other.

    from tensorlite.testing import check_grad, gradtest

    check_grad(my_op, np.array([1.0, 2.0]))        # one point, first and second derivatives

    @gradtest("(m,n),(n)->(m,n)")                  # many shapes, values and memory layouts
    def test_rmsnorm(x, w):
        return my_rmsnorm(x, w)

``check_grad``, ``check_adjoint``, ``check_against``, ``check_op`` and ``numpy_op`` only need NumPy. Functions that draw
examples need hypothesis (``pip install 'tensorlite[testing]'``), which is imported when one of them is first used.
"""

import importlib as _importlib
import typing as _typing

from .gradcheck.checks import check_adjoint, check_grad
from .opcheck.against_reference import check_against
from .opcheck.checks import check_op
from .opcheck.numpy_adapter import numpy_op
from .opcheck.op_spec import Case, ErrorInput, OpSpec, error, optest
from .opcheck.samples import Input, Sample, bools, distinct, fixed, ints, positive, real, s, unit, values, whole
from .plugin import need_hypothesis as _need_hypothesis
from .plugin import register_profiles
from .report import GradientError, GradReport

if _typing.TYPE_CHECKING:
    from .gradtests import gradtest
    from .random_programs import Program, programs
    from .strategies import (
        away_from,
        axes,
        broadcastable,
        elements,
        indices,
        layouts,
        matching,
        shapes,
        tensors,
        tie_free,
    )

__all__ = ["GradReport", "GradientError", "check_adjoint", "check_against", "check_grad", "check_op", "numpy_op"]
__all__ += ["register_profiles"]
__all__ += ["Case", "ErrorInput", "OpSpec", "error", "optest"]
__all__ += ["Input", "Sample", "bools", "distinct", "fixed", "ints", "positive", "real", "s", "unit", "values", "whole"]
__all__ += [
    "away_from", "axes", "broadcastable", "elements", "gradtest", "indices", "layouts", "matching", "Program",
    "programs", "shapes", "tensors", "tie_free",
]  # fmt: skip

# Public name -> the module or package inside tensorlite.testing that defines it.
_NEED_HYPOTHESIS = dict.fromkeys(__all__[__all__.index("away_from") :], "strategies") | {
    "gradtest": "gradtests", "Program": "random_programs", "programs": "random_programs",
}  # fmt: skip


def __getattr__(name: str) -> _typing.Any:
    if name == "given":  # the former name of values; it is not exported, because hypothesis has a given, too
        return _importlib.import_module(f"{__name__}.opcheck.samples").given
    if name not in _NEED_HYPOTHESIS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _need_hypothesis(name)
    return getattr(_importlib.import_module(f"{__name__}.{_NEED_HYPOTHESIS[name]}"), name)
