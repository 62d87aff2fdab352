"""The options of printing."""

import math

import numpy as np
import pytest

import tensorlite as tl


@pytest.fixture(autouse=True)
def restore():
    with tl.printoptions():
        yield


def test_each_option():
    x = tl.tensor([1.23456, 100.0])
    assert repr(x) == "tensor([  1.2346, 100.    ])"
    tl.set_printoptions(precision=2)
    assert repr(x) == "tensor([  1.23, 100.  ])"
    tl.set_printoptions(sci_mode=True)
    assert repr(x) == "tensor([1.23e+00, 1.00e+02])"
    tl.set_printoptions(sci_mode=False)
    assert repr(tl.tensor([1e-9, 1e9])) == "tensor([0.00, 1000000000.00])"
    tl.set_printoptions(profile="default")
    assert repr(x) == "tensor([  1.2346, 100.    ])"
    tl.set_printoptions(threshold=5, edgeitems=1)
    assert repr(tl.arange(9)) == "tensor([0, ..., 8])"
    tl.set_printoptions(threshold=math.inf)
    assert "..." not in repr(tl.arange(3000))
    tl.set_printoptions(profile="short")
    assert repr(tl.arange(3000)) == "tensor([   0,    1, ..., 2998, 2999])"
    tl.set_printoptions(profile="full", linewidth=20)
    assert repr(tl.arange(6)).splitlines()[0] == "tensor([0, 1, 2, 3,"
    tl.set_printoptions(precision=np.int64(1), sci_mode=None, profile="default")
    assert repr(x) == "tensor([  1.2, 100. ])"


def test_a_context_restores_the_options():
    before = repr(tl.tensor(1.23456))
    with pytest.raises(KeyError), tl.printoptions(precision=1):
        assert repr(tl.tensor(1.23456)) == "tensor(1.2)"
        raise KeyError
    assert repr(tl.tensor(1.23456)) == before == "tensor(1.2346)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"profile": "long"}, ValueError, "set_printoptions: expected profile to be one of default, short, full"),
        ({"precision": -1}, ValueError, "set_printoptions: expected precision to be 0 or more, got -1"),
        ({"precision": 1.5}, TypeError, "set_printoptions"),
        ({"edgeitems": True}, TypeError, "set_printoptions"),
        ({"sci_mode": 1}, ValueError, "expected sci_mode to be True, False or None, got 1"),
    ],
)
def test_wrong_options_change_nothing(options, error, message):
    before = repr(tl.arange(3000) / 7)
    with pytest.raises(error, match=message):
        tl.set_printoptions(**{"precision": 2, "threshold": 3, **options})
    assert repr(tl.arange(3000) / 7) == before
