"""bfloat16 as a dtype of tensors: what PyTorch does, or the correctly rounded number."""

import numpy as np
import pytest

import tensorlite as tl

bfloat16 = tl.bfloat16


def test_bfloat16_is_the_dtype_of_ml_dtypes() -> None:
    assert (bfloat16.name, tl.dtypes.kind_of(bfloat16), tl.dtypes.is_floating(bfloat16)) == ("bfloat16", "f", True)
    assert tl.finfo(bfloat16).eps == 2**-7
    assert tl.zeros(2, dtype="bfloat16").dtype == bfloat16


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("bfloat16", "bfloat16"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64"),
        ("int64", "bfloat16"), ("uint8", "bfloat16"), ("bool", "bfloat16"), ("complex64", "complex64"),
        ("complex128", "complex128"),
    ],
)  # fmt: skip
def test_bfloat16_promotes_as_in_pytorch(other: str, expected: str) -> None:
    assert tl.promote_types("bfloat16", other) == tl.promote_types(other, "bfloat16") == np.dtype(expected)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1 + 2**-8 + 2**-30, 1 + 2**-7),  # half of an ulp and a little more: float32 would make it a tie
        (-1 - 2**-8 - 2**-30, -1 - 2**-7),
        (1 + 2**-8, 1.0),
        (1 + 2**-8 - 2**-40, 1.0),
        (2.0**-134, 0.0),
        (2.0**-134 * (1 + 2**-40), 2.0**-133),
        (3.3961775292304957e38, np.inf),
        (3.39617e38, 3.3895313892515355e38),
        (np.nan, np.nan),
        (-np.inf, -np.inf),
        (2**55 + 2**47 + 1, 2.0**55 + 2.0**48),
        (-(2**55) - 2**47 - 1, -(2.0**55) - 2.0**48),
        (2**55 + 2**47, 2.0**55),
        (257, 256.0),
        (259, 260.0),
    ],
)
def test_a_number_is_rounded_once(number: float, expected: float) -> None:
    many = tl.tensor(np.full((2, 3), number))
    for x in (many[1, 2], many[1:, 2], tl.tensor([number], dtype=tl.bfloat16)):
        np.testing.assert_array_equal(x.to(bfloat16).double().numpy().reshape(()), expected)


def test_gradients_are_bfloat16_and_computed_in_float32() -> None:
    x = tl.tensor([1.0, 2.0, 3.5], dtype=bfloat16, requires_grad=True)
    y = (x * 1.5 + 2 - x / 3).exp().sum()
    y.backward()
    assert y.dtype == x.grad.dtype == bfloat16
    exact = 7 / 6 * np.exp(7 / 6 * np.array([1.0, 2.0, 3.5]) + 2)
    np.testing.assert_allclose(x.grad.float().numpy(), exact, rtol=0.03)
