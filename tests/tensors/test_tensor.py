"""Tensors as objects: attributes, printing, Python's and NumPy's numbers, copies and methods."""

import copy
import inspect
import math
import subprocess
import sys

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.ops import shape as ops_shape
from tensorlite.ops.reduce import sum_to_size


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    tl.set_default_dtype(tl.float32)


def x23(**kwargs):
    return tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], **kwargs)


# ---- what a tensor is -----------------------------------------------------------------------


def test_properties():
    x = x23(dtype=tl.float64)
    assert (x.shape, x.ndim, x.dim(), x.numel(), x.nelement()) == ((2, 3), 2, 2, 6, 6)
    assert (x.size(), x.size(0), x.size(-1), x.itemsize, x.nbytes) == ((2, 3), 2, 3, 8, 48)
    assert x.T.tolist() == x.mT.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert tl.ones(2, 3, 4).T.shape == (4, 3, 2)
    assert tl.ones(2, 3, 4).mT.shape == (2, 4, 3)
    assert tl.ones(2).T.shape == (2,)
    assert x.is_floating_point()
    assert not x.long().is_floating_point()
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert x.contiguous() is x
    assert x.T.contiguous().is_contiguous()
    assert x.device == tl.device("cpu")
    with pytest.raises(IndexError, match="size: dim 2 is out of range"):
        x.size(2)
    with pytest.raises(AttributeError):
        x.shape = (6,)


def test_leaves():
    x = x23(requires_grad=True)
    y = x * 2
    assert (x.is_leaf, y.is_leaf, x.requires_grad, y.requires_grad) == (True, False, True, True)
    assert x.grad_fn is None
    assert repr(y.grad_fn) == "<mul>"
    assert y.grad_fn.name == "mul"
    assert x.detach().is_leaf
    assert not y.detach().requires_grad
    assert np.shares_memory(y.detach().numpy(), y.array)
    assert not np.shares_memory(y.clone().array, y.array)
    assert y.clone().requires_grad
    z = x23()
    assert z.requires_grad_() is z
    assert z.requires_grad
    assert z.requires_grad_(False).requires_grad is False
    with pytest.raises(tl.GraphError, match=r"requires_grad: .*Use detach\(\)"):
        y.requires_grad_(False)
    y.detach_()
    assert y.is_leaf
    with pytest.raises(tl.DTypeError, match="requires_grad: expected a floating point tensor"):
        tl.tensor([1]).requires_grad_()


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: tl.tensor(1.5), "tensor(1.5)"),
        (lambda: tl.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: tl.tensor([True, False]), "tensor([ True, False])"),
        (lambda: tl.tensor([1.0, 0.123456]), "tensor([1.    , 0.1235])"),
        (lambda: x23(), "tensor([[1., 2., 3.],\n        [4., 5., 6.]])"),
        (lambda: x23(requires_grad=True)[0], "tensor([1., 2., 3.], grad_fn=<slice>)"),
        (lambda: tl.ones(2, requires_grad=True), "tensor([1., 1.], requires_grad=True)"),
        (lambda: tl.ones(2, requires_grad=True) * 3, "tensor([3., 3.], grad_fn=<mul>)"),
        (lambda: tl.ones(1, dtype=tl.float64), "tensor([1.], dtype=float64)"),
        (lambda: tl.ones(1, dtype=tl.int32), "tensor([1], dtype=int32)"),
        (lambda: tl.tensor([math.nan, math.inf]), "tensor([nan, inf])"),
        (lambda: tl.tensor([]), "tensor([])"),
        (lambda: tl.zeros(0, 3), "tensor([], size=(0, 3))"),
        (lambda: tl.zeros(1001), "tensor([0., 0., 0., ..., 0., 0., 0.])"),
    ],
)
def test_repr(make, shown):
    assert repr(make()) == str(make()) == f"{make()!r}" == shown


def test_repr_follows_the_default_dtype():
    tl.set_default_dtype(tl.float64)
    assert repr(tl.ones(1)) == "tensor([1.])"
    assert repr(tl.ones(1, dtype=tl.float32)) == "tensor([1.], dtype=float32)"


def test_containers():
    x = x23()
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2, 3], [4, 5, 6]]
    assert [row.tolist() for row in reversed(x)] == [[4, 5, 6], [1, 2, 3]]
    assert list(tl.zeros(0)) == []
    _, last = x
    assert last.tolist() == [4, 5, 6]
    assert 3.0 in x
    assert tl.tensor(3.0) in x
    assert 9 not in x
    assert len({x: 1, x23(): 2}) == 2  # by identity
    for f in (len, iter, list):
        with pytest.raises(TypeError, match="0-d tensor"):
            f(tl.tensor(1.0))


def test_iteration_gives_differentiable_rows():
    x = x23(requires_grad=True)
    a, b = x
    (a * b).sum().backward()
    assert x.grad.tolist() == [[4, 5, 6], [1, 2, 3]]


# ---- as Python's numbers --------------------------------------------------------------------


def test_numbers():
    x = tl.tensor([[2.5]])
    assert float(x) == 2.5
    assert int(x) == 2
    assert bool(x) is True
    assert complex(x) == 2.5
    assert bool(tl.tensor(0)) is False
    assert math.sqrt(tl.tensor(4.0)) == 2
    assert f"{x:.2f} {tl.tensor(3):03d}" == "2.50 003"
    assert f"{x23():.2f}" == repr(x23())
    assert [10, 20, 30][tl.tensor(1)] == 20
    assert list(range(tl.tensor(2))) == [0, 1]
    assert sum([tl.tensor(1.0), tl.tensor(2.0)]).item() == 3
    assert float(tl.tensor(1.0, requires_grad=True)) == 1


@pytest.mark.parametrize("x", [x23(), tl.tensor([])])
@pytest.mark.parametrize("f", [bool, float, int])
def test_only_a_tensor_of_one_entry_converts_to_a_number(x, f):
    with pytest.raises(
        tl.ShapeError, match=r"^expected a tensor with one entry, got shape .* Use any\(\) or all\(\)"
    ):
        f(x)


def test_only_an_integer_tensor_is_a_python_index():
    with pytest.raises(TypeError, match="index: expected an integer tensor, got float32"):
        [1, 2][tl.tensor(1.0)]
    with pytest.raises(tl.ShapeError, match="expected a tensor with one entry"):
        [1, 2][tl.tensor([0, 1])]


@pytest.mark.parametrize(("value", "kind"), [(1, int), (1.5, float), (True, bool), (1j, complex)])
def test_item_and_tolist(value, kind):
    for shape in ((), (1,), (1, 1)):
        found = tl.full(shape, value).item()
        assert found == value
        assert type(found) is kind
    assert type(tl.tensor(value).tolist()) is kind
    assert tl.tensor([[value]]).tolist() == [[value]]
    for x in (x23(), tl.zeros(0)):
        with pytest.raises(tl.ShapeError, match=r"^item: expected a tensor with one entry, got "):
            x.item()


# ---- NumPy ----------------------------------------------------------------------------------


def test_to_numpy():
    x = x23()
    assert x.numpy() is x.array
    assert np.asarray(x) is x.array
    assert np.shares_memory(np.asarray(x), x.array)
    assert not np.shares_memory(np.array(x), x.array)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.concatenate([x, x]).shape == (4, 3)
    assert np.array([tl.tensor(1.0), tl.tensor(2.0)]).tolist() == [1, 2]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float64, copy=False)
    for f in (lambda x: x.numpy(), np.asarray, np.array):
        with pytest.raises(tl.GraphError, match=r"numpy: .* Use x.detach\(\).numpy\(\)"):
            f(x23(requires_grad=True))


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    "other",
    [
        2,
        2.5,
        np.float64(2.5),
        np.float32(2.5),
        np.int64(2),
        np.array([2.0, 3.0, 4.0], np.float32),
        np.array(2.0, np.float32),
    ],
)
def test_operators_with_numbers_and_arrays_on_either_side(name, other):
    """The result is a float32 Tensor, never a NumPy array of Tensors."""
    f, x = OPERATORS[name], x23()
    for found, expected in ((f(x, other), f(x.numpy(), other)), (f(other, x), f(other, x.numpy()))):
        assert type(found) is tl.Tensor
        assert found.dtype == (tl.bool_ if expected.dtype == bool else tl.float32)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_products_with_arrays():
    array, x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), x23(requires_grad=True)
    y = array @ x
    assert type(y) is tl.Tensor
    np.testing.assert_array_equal(y.detach().numpy(), array @ x.detach().numpy())
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), array.T @ np.ones((2, 3)))
    assert type(x.detach() @ np.ones(3, np.float32)) is tl.Tensor


def test_gradients_through_arrays_and_numbers():
    x = x23(requires_grad=True)
    (np.float64(2) * x + np.ones(3, np.float32) * x - x / np.float32(4)).sum().backward()
    assert x.grad.tolist() == [[2.75] * 3] * 2


NUMPY_FUNCTIONS = [
    np.sin, np.exp, np.negative, np.absolute, np.square, np.arctan, np.rint, np.isfinite,
    lambda x: np.add(np.ones(3, np.float32), x), lambda x: np.power(x, 2), lambda x: np.arctan2(x, x),
    lambda x: np.ones(3, np.float32) < x, lambda x: np.matmul(x, np.ones((3, 2), np.float32)),
    np.sum, np.mean, np.max, np.argmin, np.var, np.std, np.prod, np.cumsum, np.transpose, np.ravel, np.squeeze,
    lambda x: np.sum(x, axis=1, keepdims=True), lambda x: np.cumsum(x, axis=0), lambda x: np.std(x, axis=-1, ddof=1),
    lambda x: np.concatenate([x, x], axis=1), lambda x: np.concatenate([x, x], axis=None),
    lambda x: np.stack([x, x], axis=1), lambda x: np.where(x > 2, x, 0), lambda x: np.clip(x, 2, 4),
    lambda x: np.transpose(x, (1, 0)), lambda x: np.reshape(x, (3, 2)), lambda x: np.expand_dims(x, 1),
    lambda x: np.einsum("ij,kj->ik", x, x), lambda x: np.swapaxes(x, 0, 1), lambda x: np.outer(x[0], x[1]),
    lambda x: np.clip(x, a_min=2, a_max=None), lambda x: np.clip(x, max=3),
    np.shape, np.ndim, np.size,
]  # fmt: skip


@pytest.mark.parametrize("f", NUMPY_FUNCTIONS)
def test_numpy_functions_call_the_op(f):
    x = x23(requires_grad=True)
    y, expected = f(x), f(x.detach().numpy())
    if isinstance(expected, (int, tuple)):
        assert y == expected
        return
    assert type(y) is tl.Tensor
    assert y.requires_grad == tl.is_floating_point(y)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (np.exp2, "exp2"), (np.linalg.norm, "linalg.norm"), (np.fft.fft, "fft.fft"), (np.add.reduce, "add.reduce"),
        (lambda x: np.sin(x, dtype=np.float64), "sin"), (lambda x: np.vstack([x, x]), "vstack"),
        (lambda x: np.ones((2, 3), np.float32).__iadd__(x), "add"), (lambda x: np.divmod(x, 2), "divmod"),
    ],
)  # fmt: skip
def test_other_numpy_functions_take_tensors_without_gradients(f, name):
    x = x23(requires_grad=True)
    np.testing.assert_array_equal(f(x.detach()), f(x.detach().numpy()))
    with pytest.raises(tl.GraphError, match=rf"^numpy\.{name}: a tensor requires gradients.*x\.detach\(\)\.numpy"):
        f(x)


def test_numpy_functions_in_a_gradient_rule():
    """Of first order they get arrays, of second order Tensors."""

    @tl.op(lambda g, x: g * np.cos(x) + np.zeros(3) * g)
    def sine(xp, x):
        return xp.sin(x)

    x = tl.tensor([0.5, 1.0, 2.0], dtype=tl.float64, requires_grad=True)
    (first,) = tl.autograd.grad(sine(x).sum(), x, create_graph=True)
    (second,) = tl.autograd.grad(first.sum(), x)
    np.testing.assert_allclose(first.detach().numpy(), np.cos(x.detach().numpy()), rtol=1e-15)
    np.testing.assert_allclose(second.numpy(), -np.sin(x.detach().numpy()), rtol=1e-15)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x + "a", "^add: expected a Tensor or a number, got a str"),
        (lambda x: x * [1, 2, 3], "^mul: expected a Tensor or a number, got a list"),
        (lambda x: x + None, r"^add\(float32\(2, 3\), None, 1\): this op is not defined for arguments of these types"),
        (lambda x: x @ 2, "^matmul.*a number has no matrix product"),
        (lambda x: 2 @ x, "^matmul.*a number has no matrix product"),
        (lambda x: ~x, r"^bitwise_not\(float32\(2, 3\)\)"),
    ],
)
def test_wrong_operands(f, message):
    with pytest.raises(TypeError, match=message):
        f(x23())


# ---- copies --------------------------------------------------------------------------------


def test_deepcopy():
    x = x23(requires_grad=True)
    (x * x).sum().backward()
    x.note = ["kept"]
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == x.grad.tolist()
    assert y.note == ["kept"]
    for a, b in ((x.array, y.array), (x.grad.array, y.grad.array)):
        assert not np.shares_memory(a, b)
    first, second, third = copy.deepcopy([x, x, x23()])
    assert first is second
    assert first is not third
    with pytest.raises(tl.GraphError, match=r"deepcopy: only leaf tensors .* Use clone\(\) or detach\(\)"):
        copy.deepcopy(x * 2)


# ---- methods and functions ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reshape", "view", "expand", "permute", "repeat", "tile", "flip", "sum_to_size"])
def test_sizes_are_separate_arguments_or_one_tuple(name):
    x = tl.arange(6).reshape(1, 2, 3).float()
    sizes = {
        "permute": (2, 0, 1),
        "reshape": (3, 2),
        "view": (6,),
        "expand": (4, 2, 3),
        "flip": (0, 2),
        "sum_to_size": (1, 3),
    }.get(name, (2, 1, 2))
    method = getattr(x, name)
    assert (
        method(*sizes).tolist()
        == method(sizes).tolist()
        == method(list(sizes)).tolist()
        == (sum_to_size if name == "sum_to_size" else getattr(ops_shape, name))(x, sizes).tolist()
    )


def test_methods_equal_the_functions():
    x, y = x23(), x23() + 1
    for name, args in {
        "add": (y,),
        "sub": (y,),
        "mul": (y,),
        "div": (y,),
        "pow": (2,),
        "maximum": (y,),
        "matmul": (y.T,),
        "sum": (0,),
        "mean": (1, True),
        "std": (),
        "amax": (1,),
        "logsumexp": (1,),
        "softmax": (-1,),
        "cumsum": (0,),
        "norm": (),
        "transpose": (0, 1),
        "unsqueeze": (0,),
        "split": (1,),
        "chunk": (2, 1),
        "unbind": (1,),
        "roll": (1,),
        "masked_fill": (x > 2, 0.0),
        "tril": (),
        "sort": (),
        "topk": (2,),
        "argmax": (1,),
        "clamp": (2, 4),
        "isnan": (),
        "round": (),
        "tanh": (),
    }.items():
        a, b = getattr(x, name)(*args), getattr(tl, name)(x, *args)
        pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
        for found, expected in pairs:
            assert found.tolist() == expected.tolist()
            assert found.dtype == expected.dtype


def test_help_shows_the_ops_text_and_signature():
    assert tl.Tensor.exp is tl.exp
    assert tl.Tensor.exp.__doc__ == tl.exp.__doc__
    assert str(inspect.signature(tl.Tensor.sum)) == "(input, dim=None, keepdim=False, *, dtype=None)"
    assert str(inspect.signature(x23().sum)) == "(dim=None, keepdim=False, *, dtype=None)"
    assert str(inspect.signature(x23().add_)) == "(other, alpha=1)"
    assert str(inspect.signature(x23().reshape)) == "(*shape)"
    assert tl.exp.__doc__ in tl.Tensor.exp_.__doc__


def test_keywords_keep_their_meaning_in_any_order():
    x = x23()
    assert x.sum(keepdim=True, dim=0).tolist() == x.sum(0, True).tolist() == x.sum(axis=0, keepdims=True).tolist()
    assert tl.sum(input=x, dim=1).tolist() == tl.sum(dim=1, input=x).tolist() == [6.0, 15.0]
    assert tl.sub(other=x, input=2 * x).tolist() == x.tolist()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^sum: dim and axis are the same argument"):
            x.sum(dim=0, axis=0)
        with pytest.raises(TypeError, match=r"^sum: .*unexpected keyword argument 'dims'"):
            x.sum(dims=0)


# ---- the package ----------------------------------------------------------------------------


def test_modules_that_are_loaded_on_first_use():
    code = (
        "import sys, tensorlite as tl\n"
        "assert 'tensorlite.testing' not in sys.modules\n"
        "assert tl.testing is sys.modules['tensorlite.testing']\n"
        "assert not hasattr(tl, 'no_such_name')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
