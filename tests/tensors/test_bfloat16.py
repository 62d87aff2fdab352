"""bfloat16 as a dtype of tensors: what PyTorch does, or the correctly rounded number."""

import copy
import pickle
import sys

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")

import tensorlite as tl
from tensorlite import nn

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


def test_without_ml_dtypes_one_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # so that its import fails
    message = r"^bfloat16: expected the package ml_dtypes, .* Run pip install 'tensorlite\[bfloat16\]'.$"
    for attempt in (lambda: tl.bfloat16, lambda: tl.dtypes.bfloat16):
        with pytest.raises(AttributeError, match=message):
            attempt()
    for attempt in (
        lambda: tl.zeros(2, dtype="bfloat16"),
        lambda: tl.ones(2).bfloat16(),
        lambda: tl.ones(2).to("bfloat16"),
        lambda: nn.Linear(2, 2).bfloat16(),
        lambda: tl.promote_types("bfloat16", "float32"),
        lambda: tl.set_default_dtype("bfloat16"),
    ):
        with pytest.raises(tl.DTypeError, match=message):
            attempt()
    assert (tl.ones(2, dtype=tl.float16) * 2.5).dtype == tl.float16
    assert tl.finfo(tl.float16).eps == 2**-10


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([0.1, 2, 3.14159], "tensor([0.1001, 2.    , 3.1406], dtype=bfloat16)"),
        ([1, 2, 3], "tensor([1., 2., 3.], dtype=bfloat16)"),
        (0.1, "tensor(0.1001, dtype=bfloat16)"),
        ([1e-5, 1e5], "tensor([1.0014e-05, 9.9840e+04], dtype=bfloat16)"),
        ([np.nan, np.inf, -0.0], "tensor([nan, inf, -0.], dtype=bfloat16)"),
    ],
)
def test_bfloat16_is_printed_with_the_digits_of_float32(data: object, expected: str) -> None:
    assert repr(tl.tensor(data, dtype=bfloat16)) == expected


NUMBERS = [0.1, -2.7, 3.14159, 1e-3, 500.3, -0.0, 7.0]
NANS = [1.0, np.nan, -3.0, 2.0, np.inf]
CALLS = {
    "0-d float32": lambda lib, x: x(NUMBERS) * lib.tensor(1e-3),
    "0-d bfloat16": lambda lib, x: lib.tensor(NUMBERS) * x(0.1),
    "a number times": lambda lib, x: 1.1 * x(NUMBERS),
    "over": lambda lib, x: 1.1 / x(NUMBERS[:5]),
    "integers": lambda lib, x: x(NUMBERS) + lib.tensor([1, 2, 3, 4, 5, 6, 7]),
    "a boolean": lambda lib, x: x(NUMBERS) + True,
    "equal": lambda lib, x: x([0.1, 0.2]) == 0.1,  # the number is rounded as well
    "equal 0-d": lambda lib, x: x([0.1, 0.2]) == lib.tensor(0.1),
    "less": lambda lib, x: x([0.1, 256]) < lib.tensor([0.1, 257]),
    "fmod": lambda lib, x: lib.fmod(x(NUMBERS), 0.3),
    "remainder": lambda lib, x: lib.remainder(x(NUMBERS), 0.3),
    "where": lambda lib, x: lib.where(x(NUMBERS) > 0, x(NUMBERS), 0.1),
    "clamp": lambda lib, x: lib.clamp(x(NUMBERS), -0.3, 1.7),
    "maximum": lambda lib, x: lib.maximum(x(NUMBERS), lib.tensor(NUMBERS) + 1),
    "argmax of NaN": lambda lib, x: lib.argmax(x(NANS)),
    "max of NaN": lambda lib, x: lib.max(x(NANS), 0)[1],
    "topk of NaN": lambda lib, x: lib.topk(x(NANS), 3)[0],
    "sort of NaN": lambda lib, x: lib.sort(x(NANS), descending=True)[0],
    "many ones": lambda lib, x: x([1.0] * 4096).sum(),
    "a mean": lambda lib, x: x(NUMBERS * 100).mean(),
    "a running sum": lambda lib, x: x([1.0] * 600).cumsum(0)[-3:],
    "sum to float32": lambda lib, x: x(NUMBERS).sum(dtype=lib.float32),
    "sum from float32": lambda lib, x: lib.tensor(NUMBERS).sum(dtype=lib.bfloat16),
    "cat": lambda lib, x: lib.cat([x(NUMBERS), lib.tensor(NUMBERS)]),
    "to int32": lambda lib, x: x([0.1, 2.7, -3.5, 100]).to(lib.int32),
    "to float16": lambda lib, x: x([0.1, 2.7, -3.5, 100]).to(lib.float16),
    "add_": lambda lib, x: x(NUMBERS).add_(lib.tensor(NUMBERS)),
    "add_ to float32": lambda lib, x: lib.tensor(NUMBERS).add_(x(NUMBERS)),
    "arange": lambda lib, x: lib.arange(0, 300, dtype=lib.bfloat16),
    "full": lambda lib, x: lib.full((3,), 0.1, dtype=lib.bfloat16),
    "isclose": lambda lib, x: lib.isclose(x(NUMBERS), x(NUMBERS) * 1.01, rtol=0.02),
    "scatter_add": lambda lib, x: lib.scatter_add(x([0.0]), 0, lib.tensor([0] * 600), x([1.0] * 600)),
    "softmax": lambda lib, x: lib.softmax(x(NUMBERS), 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = CALLS[name](torch, lambda data: torch.tensor(data, dtype=torch.bfloat16))
    ours = CALLS[name](tl, lambda data: tl.tensor(data, dtype=bfloat16))
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.double().numpy(), theirs.double().numpy(), rtol=2**-8)


def test_complex_numbers_and_integers_do_not_go_into_the_wrong_tensor() -> None:
    for target, source in ((bfloat16, tl.complex64), (tl.int64, bfloat16)):
        with pytest.raises(tl.DTypeError, match="cannot be stored in place"):
            tl.ones(2, dtype=target).add_(tl.ones(2, dtype=source))
    with pytest.raises(tl.DTypeError, match="expected floating point numbers of 32 or 64 bits, got bfloat16"):
        tl.linalg.inv(tl.eye(2, dtype=bfloat16))


def test_gradients_that_add_up_many_values_do_so_in_float32() -> None:
    one = tl.ones(1, dtype=bfloat16, requires_grad=True)
    ids = tl.zeros(4096, dtype=tl.int64)
    (one.expand(4096) * 1).sum().backward()
    one[ids].sum().backward()
    nn.functional.embedding(ids, one.reshape(1, 1)).sum().backward()
    assert one.grad.item() == 3 * 4096


LAYERS = {
    "Linear": (lambda: nn.Linear(3, 4), (2, 3)),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 2), (2, 3, 5, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 2), (2, 3, 5)),
    "LayerNorm": (lambda: nn.LayerNorm(3), (2, 3)),
    "RMSNorm": (lambda: nn.RMSNorm(3), (2, 3)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "LSTM": (lambda: nn.LSTM(3, 4), (5, 2, 3)),
    "GRU": (lambda: nn.GRU(3, 4), (5, 2, 3)),
    "Dropout": (lambda: nn.Dropout(0.5), (2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_optimizers_keep_bfloat16_and_the_state_float32(name: str) -> None:
    tl.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make().bfloat16()
    x = tl.randn(shape, dtype=bfloat16, requires_grad=True)
    out = layer(x)
    out = out[0] if isinstance(out, tuple) else out
    (out * out).sum().backward()
    assert {t.dtype for t in (out, x.grad, *(p.grad for p in layer.parameters()))} == {bfloat16}
    nn.utils.clip_grad_norm_([x, *layer.parameters()], 0.1)
    for optimizer in (tl.optim.AdamW([x, *layer.parameters()], lr=0.1), tl.optim.SGD([x], lr=0.1, momentum=0.9)):
        optimizer.step()
        state = [v for s in optimizer.state_dict()["state"].values() for v in s.values()]
        assert {v.dtype for v in state if isinstance(v, tl.Tensor) and v.ndim} == {tl.float32}
    assert x.dtype == bfloat16


def test_copies_arrays_and_other_libraries() -> None:
    x = tl.tensor([[0.1, -2.7], [np.inf, 3]], dtype=bfloat16)
    assert np.shares_memory(x.numpy(), x.array)
    assert (x.numpy().dtype, np.asarray(x, np.float32).dtype) == (bfloat16, np.float32)
    pickled = pickle.loads(pickle.dumps(x))  # noqa: S301
    for y in (pickled, copy.deepcopy(x), tl.from_numpy(x.numpy()), tl.tensor(list(x.numpy()))):
        assert y.dtype == bfloat16
        assert y.equal(x)
    assert x[0, 0].item() == 0.10009765625
    assert isinstance(x.tolist()[0][0], float)
    torch = pytest.importorskip("torch")
    theirs = torch.tensor([[0.1, np.inf], [-2.7, 3]], dtype=torch.bfloat16, requires_grad=True).t()
    assert tl.tensor(theirs).equal(x)
    linear = nn.Linear(2, 2).bfloat16()
    linear.load_state_dict(torch.nn.Linear(2, 2).bfloat16().state_dict())
    assert linear.weight.dtype == bfloat16


def test_a_function_written_for_float32_works_in_bfloat16() -> None:
    @tl.op(lambda g, x: g * 2.0 * x)
    def square(xp, x):
        return x * x * 1.0

    x = tl.tensor([3.0], dtype=bfloat16, requires_grad=True)
    y = square(x)
    y.backward()
    assert (y.dtype, x.grad.dtype, x.grad.item()) == (bfloat16, bfloat16, 6.0)
    with pytest.raises(ValueError, match="op: bfloat16 must be"):
        tl.op(lambda g: g, bfloat16="yes")


def test_random_numbers_are_below_1_on_each_device() -> None:
    import tensorlite.testing.strict  # noqa: F401

    for device in ("cpu", "strict"):
        x = tl.rand(5000, dtype=bfloat16, device=device, generator=tl.Generator().manual_seed(0)).cpu()
        assert (x.dtype, bool((x < 1).all()), bool((x * 256 == (x * 256).round()).all())) == (bfloat16, True, True)
    x = tl.tensor([[1.5, 2], [3, 4]], dtype=bfloat16)
    assert (x.to("strict") @ x.to("strict") * 1.5).cpu().equal(x @ x * 1.5)


def test_bfloat16_can_be_the_default_dtype() -> None:
    try:
        tl.set_default_dtype(bfloat16)
        made = (tl.tensor([0.1]), tl.zeros(2), tl.tensor([1, 2]) / 3, tl.rand(3), nn.Linear(2, 2).weight)
        assert {x.dtype for x in made} == {bfloat16}
    finally:
        tl.set_default_dtype(tl.float32)
