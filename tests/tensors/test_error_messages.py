"""Errors for the mistakes of users: each names the op and the values, and none is NumPy's own message."""

import operator
import re

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import DTypeError, ShapeError, missing_names
from tensorlite.nn import functional as F

M, V, I, B = tl.zeros(2, 3), tl.zeros(3), tl.arange(3), tl.tensor([True])
BROADCAST = "the shapes do not broadcast"

MISTAKES = [
    # shapes
    (lambda: V + tl.zeros(4), ShapeError, r"add\(float32(3,), float32(4,)\): " + BROADCAST),
    (lambda: tl.where(V > 0, V, tl.zeros(4)), ShapeError, "where.*" + BROADCAST),
    (lambda: V.clamp(tl.zeros(4)), ShapeError, "clamp.*" + BROADCAST),
    (lambda: M.reshape(4, 2), ShapeError, r"reshape\(float32(2, 3)\): shape (4, 2) does not fit 6 elements"),
    (lambda: M.reshape(-2, 3), ShapeError, "reshape.*shape (-2, 3) may have one -1"),
    (lambda: M.view(-1, -1), ShapeError, "view.*shape (-1, -1) may have one -1"),
    (lambda: M.view(2.0, 3), TypeError, "view.*sizes must be .*int.*2.0"),
    (lambda: V.expand(2, 4), ShapeError, r"broadcast_to\(float32(3,)\): it does not broadcast to shape (2, 4)"),
    (lambda: V.expand("a"), TypeError, "expand: sizes must be .*'a'"),
    (lambda: M.permute(0, 0), ShapeError, "permute.*dims (0, 0) must name each of the 2 dimensions once"),
    (lambda: M.permute("a"), TypeError, "permute.*'a'"),
    (lambda: M.transpose(0, 2), IndexError, "transpose.*dim 2 is out of range"),
    (lambda: V.mT, IndexError, "transpose.*dim -2 is out of range"),
    (lambda: M.flip(2), IndexError, "flip.*dim 2 is out of range"),
    (lambda: M.flip(0, -2), ValueError, "flip.*dims (0, -2) names a dimension twice"),
    (lambda: M.roll((1, 2), 0), ValueError, "roll.*one shift for each of dims.*got shifts (1, 2), dims 0"),
    (lambda: M.roll(1.5, 0), TypeError, "roll.*shifts must be .*1.5"),
    (lambda: M.roll(1, 2), IndexError, "roll.*dim 2 is out of range"),
    (lambda: V.unbind(1), IndexError, "unbind: dim 1 is out of range"),
    (lambda: V.split("ab"), TypeError, "split: sizes must be .*'ab'"),
    (lambda: V.chunk(1.5), TypeError, "chunk.*1.5"),
    (lambda: V.narrow(0, 0.5, 1), TypeError, "narrow: start must be .*0.5"),
    (lambda: V.unflatten(0, (2, 2)), ShapeError, "unflatten: sizes (2, 2) do not multiply to 3"),
    (lambda: M.repeat(-1, 2), ShapeError, "repeat.*must not be negative, got (-1, 2)"),
    (lambda: V.tile(1.5), TypeError, "tile: dims must be .*1.5"),
    (lambda: tl.stack([V], 2), IndexError, "stack: dim 2 is out of range for a tensor with 2 dimensions"),
    (lambda: tl.cat(V), TypeError, "cat: expected a list or tuple of Tensors, got Tensor"),
    (lambda: tl.stack(x for x in [V]), TypeError, "stack: expected a list or tuple of Tensors, got generator"),
    (lambda: tl.cat([V, None]), TypeError, "cat: expected a Tensor, got NoneType"),
    (lambda: tl.cat([V], "a"), TypeError, "cat: dim must be an int, got 'a'"),
    (lambda: tl.einsum("i,i", 1.0, V), TypeError, "einsum: expected a Tensor, got float"),
    # reductions and order
    (lambda: V.sum(0.5), TypeError, "sum.*dim must be .*0.5"),
    (lambda: V.sum(1), IndexError, r"sum\(float32(3,)\): dim 1 is out of range"),
    (lambda: V.sum((0, -1)), ValueError, "sum.*dim (0, -1) names a dimension twice"),
    (lambda: V.norm(dim=1), IndexError, "norm.*dim 1 is out of range"),
    (lambda: tl.zeros(0).amax(), ShapeError, "amax.*no entries to choose from"),
    (lambda: tl.zeros(2, 0).max(1), ShapeError, "argmax.*no entries to choose from along dim 1"),
    (lambda: V.argmax((0,)), TypeError, "argmax.*dim must be an int, got (0,)"),
    (lambda: V.max(1), IndexError, "max: dim 1 is out of range"),
    (lambda: V.cumsum(None), TypeError, "cumsum.*dim must be an int, got None"),
    (lambda: V.topk(1.5), TypeError, "topk.*k must be an int, got 1.5"),
    (lambda: M.tril("a"), TypeError, "tril.*'a'"),
    # dtypes and values
    (lambda: V & V, DTypeError, r"bitwise_and\(float32(3,), float32(3,)\): this op is not defined"),
    (lambda: B - B, DTypeError, r"sub\(bool(1,), bool(1,), 1\): this op is not defined"),
    (lambda: -B, DTypeError, "neg.*this op is not defined"),
    (lambda: V < "a", DTypeError, r"lt\(float32(3,), 'a'\): this op is not defined"),
    (lambda: V * object(), DTypeError, "mul.*object.*this op is not defined"),
    (lambda: tl.where(V, V, V), DTypeError, "where.*condition must be of booleans, got float32"),
    (lambda: tl.where(V > 0, None, V), TypeError, "where.*got None"),
    (lambda: V.masked_fill(V > 0, None), TypeError, "masked_fill.*got None"),
    (lambda: I.scatter(0, I, 1.5), DTypeError, "scatter: 1.5 does not fit into a tensor of int64"),
    (lambda: I**-1, ValueError, "pow.*negative"),
    (lambda: I // 0, RuntimeError, "floor_divide: division of integers by 0"),
    (lambda: I % 0, RuntimeError, "remainder: division of integers by 0"),
    (lambda: tl.div(I, 0, rounding_mode="trunc"), RuntimeError, "div: division of integers by 0"),
    (lambda: V.sum(dtype="cpu"), DTypeError, "dtype: expected a number type .*, got 'cpu'"),
    (lambda: tl.sum([1.0], dtype="float64"), TypeError, "sum: expected a Tensor, got list"),
    (lambda: F.gelu(V, "fast"), ValueError, "gelu.*got 'fast'"),
    (lambda: F.one_hot(I, -5), ValueError, "one_hot.*got -5"),
    (lambda: F.one_hot(I - 1), IndexError, "one_hot.*class -1 at position (0,)"),
    (lambda: F.softmax(V, None), TypeError, "softmax.*dim must be an int, got None"),
    (lambda: F.log_softmax(V, 1), IndexError, "log_softmax.*dim 1 is out of range"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_a_mistake_is_one_clear_error(mistake, error, message):
    pattern = "^" + re.sub(r"(?<!\\)([()])", r"\\\1", message)  # parentheses that are not escaped are shapes
    with pytest.raises(error, match=pattern) as caught:
        mistake()
    assert caught.value.__cause__ is None
    assert not re.search(r"\b(axis|axes|ufunc|ndarray|numpy|operands)\b", str(caught.value))


def test_wrong_values_are_not_shape_errors():
    for mistake in (lambda: I**-1, lambda: F.gelu(V, "fast"), lambda: V.clamp(), lambda: V.sum((0, 0))):
        with pytest.raises(ValueError) as caught:
            mistake()
        assert not isinstance(caught.value, ShapeError)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("value", ["a", None, object(), 1j])
def test_wrong_values_cannot_be_assigned(value, tracked):
    x = tl.zeros(3, requires_grad=tracked) * 1
    with pytest.raises(TypeError, match=r"^(setitem|index_put)"):
        x[0] = value
    assert x.tolist() == [0.0, 0.0, 0.0]


def test_numbers_outside_an_integer_dtype_are_an_error():
    x = tl.zeros(2, dtype=tl.int8)
    for data in (300, [1, -129], float("nan"), [float("inf")]):
        with pytest.raises(DTypeError, match=r"^tensor: .* do not fit into int8"):
            tl.tensor(data, dtype=tl.int8)
    with pytest.raises(DTypeError, match=r"^setitem: 300 does not fit into a tensor of int8"):
        x[0] = 300
    assert x.tolist() == [0, 0]
    assert tl.tensor([127, -128], dtype=tl.int8).tolist() == [127, -128]


def test_shared_memory_cannot_be_written():
    row, x = tl.zeros(3), tl.zeros(3, 3)
    for change in (
        lambda: row.expand(2, 3).__setitem__((0, 0), 1.0),
        lambda: row.expand(2, 3).add_(1),
        lambda: x.diagonal().add_(1),
    ):
        with pytest.raises(ShapeError, match=r"its memory is read-only.*clone\(\) it first"):
            change()
    assert not row.any()
    assert not x.any()


# ---- ops of users -----------------------------------------------------------------------------


def run(*rules, forward=lambda xp, x: x * 2, **options):
    def f(xp, x):
        return forward(xp, x)

    x = tl.ones(3, requires_grad=True)
    tl.op(*rules, **options)(f)(x).sum().backward()
    return x.grad


BAD_OPS = [
    (lambda: run(lambda g: g, lambda g: g), TypeError, "^op f: 2 gradient rules for arguments x$"),
    (lambda: run(3), TypeError, "^op f: expected a gradient rule, a function .* got 3"),
    (lambda: run(lambda: 1), TypeError, "^op f: expected a gradient rule, a function .* got <function"),
    (lambda: tl.op(tl.ones(3))(3), TypeError, "^op: expected a function to decorate, got int. Write @op"),
    (lambda: tl.op(lambda g: g)(lambda xp: 1), TypeError, "^op .*: its function must take the namespace xp, and then"),
    (lambda: run(lambda g: None), TypeError, "^f: the gradient rule of argument 'x' returned None"),
    (lambda: run(lambda g: g.astype("float64")), DTypeError, "^f: the gradient rule of .*'x' gave float64, .* float32"),
    (lambda: run(lambda g: g.astype("int64")), DTypeError, "^f: the gradient rule of argument 'x' gave int64"),
    (lambda: run(lambda g: g, forward=lambda xp, x: None), TypeError, "^f: the function must return .*, got None"),
    (lambda: run(lambda g: g, forward=lambda xp, x: (x, x)), TypeError, "^f: .* got tuple. .*multi_output=True"),
    (lambda: run(lambda g: g, forward=lambda xp, x: tl.ones(3)), TypeError, "^f: .* got Tensor"),
    (
        lambda: run(backward=lambda xp, g, x: g, composite=lambda x: x * 2),
        TypeError,
        "^f: its backward function must return a tuple",
    ),
    (
        lambda: run(backward=lambda xp, g, x: (), composite=lambda x: x * 2),
        TypeError,
        "^f: its backward function must return a tuple.*got 0 of them",
    ),
]


@pytest.mark.parametrize(("mistake", "error", "message"), BAD_OPS)
def test_a_mistake_in_a_users_op_is_one_clear_error(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_a_users_op_may_promote():
    x = tl.ones(2, requires_grad=True)

    @tl.op(lambda g, y: g * y, lambda g, x: g * x, dtypes="promote")
    def times(xp, x, y):
        return x * y

    times(x, tl.ones(2, dtype=tl.float64)).sum().backward()
    assert x.grad.dtype == tl.float32
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_scalar_gradient_under_detect_anomaly():
    x = tl.tensor(0.0, requires_grad=True)
    with tl.detect_anomaly(), pytest.raises(tl.AnomalyError, match=r"^sqrt: the backward pass made the first infinity"):
        tl.sqrt(x).backward()


def test_a_hook_must_be_callable():
    with pytest.raises(TypeError, match=r"^register_hook: expected a function of the gradient, got int"):
        tl.ones(2, requires_grad=True).register_hook(3)


def test_numpy_ints_are_dims():
    assert M.sum(np.int64(1)).shape == (2,)
    assert M.transpose(np.int64(0), 1).shape == (3, 2)


# ---- making tensors, functions of functions, modules, optimizers ----------------------------------


def scheduled(optimizer, f):
    return tl.optim.lr_scheduler.LambdaLR(optimizer, f)


def sgd(*params):
    return tl.optim.SGD(params or [tl.nn.Parameter(tl.zeros(2))], lr=1)


def step_with_grad(grad):
    p = tl.nn.Parameter(tl.zeros(2))
    p.grad = grad
    sgd(p).step()


class Forgetful(tl.nn.Module):
    def __init__(self):
        self.width = 3


LINEAR = tl.nn.Linear(2, 3)

OTHER_MISTAKES = [
    (lambda: tl.Tensor(2, 3), TypeError, r"Tensor: expected data, got sizes.* For a shape use tl\.empty\(2, 3\)"),
    (lambda: tl.Tensor(2, 3, 4), TypeError, r"Tensor: expected data, got sizes.* For a shape use tl\.empty\(2, 3, 4\)"),
    (lambda: tl.Tensor([1.0], "cpu"), TypeError, r"Tensor: expected data and a bool .*, got \[1.0\], 'cpu'"),
    (lambda: tl.full((2,), [1, 2]), ShapeError, r"full: fill_value must be one number, got shape \(2,\)"),
    (lambda: V.new_full((2,), "a"), TypeError, "expected numbers or booleans, got str 'a'"),
    (lambda: V.new_zeros(-1), ShapeError, r"new_full: sizes must not be negative, got \(-1,\)"),
    (lambda: V.new_ones(1.5), TypeError, "new_full: sizes must be"),
    (lambda: tl.zeros_like([1]), TypeError, "zeros_like: expected a Tensor, got list"),
    (lambda: tl.randint_like([1], 3), TypeError, "randint_like: expected a Tensor, got list"),
    (lambda: tl.randint(0.5, 3, (2,)), TypeError, "randint: low must be an int, got 0.5"),
    (lambda: tl.randint(0, 300, (2,), dtype=tl.int8), DTypeError, "randint: the integers from 0 to 299 do not fit"),
    (lambda: tl.randn(2, generator=3), TypeError, "generator: expected a tensorlite.Generator, got int"),
    (lambda: tl.set_default_dtype("foo"), DTypeError, "expected a number type .*, got 'foo'"),
    (lambda: tl.equal(V, [0, 0, 0]), TypeError, "equal: expected a Tensor, got list"),
    (lambda: tl.allclose(V, 0.0), TypeError, "allclose: expected a Tensor, got float"),
    (lambda: tl.func.grad(3)(V), TypeError, "grad: expected a function to differentiate, got int"),
    (lambda: tl.func.vjp(3, V), TypeError, "vjp: expected a function to differentiate, got int"),
    (lambda: tl.func.grad(lambda x: x.sum(), "a")(V), TypeError, "grad: argnums must be .*'a'"),
    (lambda: tl.func.grad(lambda x: x.sum(), (0, -1))(V), ValueError, r"grad: argnums \(0, -1\) names .* twice"),
    (lambda: tl.func.grad(lambda x: None)(V), ShapeError, "grad: the function must return one scalar, got nothing"),
    (lambda: tl.func.hessian(lambda x: x.sum(), (0.5,)), TypeError, r"hessian: argnums must be an int or"),
    (lambda: tl.checkpoint(lambda x: 3, V), TypeError, "checkpoint: <lambda> must return a Tensor, .* got int"),
    (lambda: tl.checkpoint(3, V), TypeError, "checkpoint: expected a function, got int"),
    (lambda: F.linear([1.0], V), TypeError, "linear: input must be a Tensor, got list"),
    (lambda: F.layer_norm([1.0], 1), TypeError, "layer_norm: input must be a Tensor, got list"),
    (lambda: F.layer_norm(V, 3, [1, 1, 1]), TypeError, "layer_norm: weight or bias must be a Tensor, got list"),
    (lambda: F.layer_norm(V, "a"), TypeError, "layer_norm: normalized_shape must be .*'a'"),
    (lambda: F.cross_entropy(M, I[:2], [1, 1, 1]), TypeError, "cross_entropy: weight must be a Tensor, got list"),
    (lambda: F.cross_entropy(M, I[:2], ignore_index="a"), TypeError, "cross_entropy: ignore_index must be an int"),
    (lambda: F.scaled_dot_product_attention(M, M, M, [1]), TypeError, ".*attn_mask must be a Tensor, got list"),
    (lambda: F.pad(V, 1), ShapeError, r"pad.*expected two widths for each of at most 1 dimensions, got \(1,\)"),
    (lambda: F.pad(V, (1.5, 1)), TypeError, r"pad: widths must be .*\(1.5, 1\)"),
    (lambda: F.pad(V, (1, 1), value="a"), TypeError, "pad: value must be a number, got 'a'"),
    (lambda: tl.nn.MultiheadAttention(2, 1)([1], M, M), TypeError, "MultiheadAttention: query must be a Tensor"),
    (lambda: list(Forgetful().parameters()), AttributeError, r"Forgetful: call super\(\).__init__\(\)"),
    (lambda: LINEAR.load_state_dict(None), TypeError, "Linear.load_state_dict: expected a dict .* got NoneType"),
    (lambda: LINEAR.load_state_dict(LINEAR), TypeError, "Linear.load_state_dict: expected a dict .* got Linear"),
    (lambda: tl.nn.Sequential(LINEAR)["a"], TypeError, "Sequential: the index must be an int, got 'a'"),
    (lambda: tl.nn.init.uniform_([1]), TypeError, "uniform_: expected a Tensor to fill, got list"),
    (lambda: tl.nn.utils.clip_grad_norm_([V], "a"), TypeError, "clip_grad_norm_: max_norm must be a number, got 'a'"),
    (lambda: tl.optim.SGD(LINEAR, lr=1), TypeError, r"SGD: params must .* got Linear. Pass model.parameters\(\)"),
    (lambda: tl.optim.SGD([{"params": [V]}, V], lr=1), TypeError, "SGD: a group must be a dict .* got Tensor"),
    (lambda: step_with_grad(3), TypeError, r"grad: expected None or a Tensor float32\(2,\).* got int"),
    (lambda: scheduled(sgd(), lambda step: 1).load_state_dict("a"), TypeError, "LambdaLR: expected .*, got str"),
    (lambda: scheduled(sgd(), 3), TypeError, "LambdaLR: expected a function or a list of them, got int"),
    (lambda: scheduled(sgd(), lambda step: "a"), ValueError, "LambdaLR: the learning rate must be a number.* got 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), OTHER_MISTAKES)
def test_a_mistake_outside_the_ops_is_one_clear_error(mistake, error, message):
    with pytest.raises(error, match=f"^.*{message}") as caught:
        mistake()
    assert caught.value.__cause__ is None


def test_argnums_out_of_range():
    with pytest.raises(IndexError, match=r"^grad: argnums 1 is out of range for 1 positional arguments"):
        tl.func.grad(lambda x: x.sum(), 1)(V)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diff", r"module 'tensorlite' has no attribute 'diff'. Use x\[1:\] - x\[:-1\].$"),
        ("conv2d", r"no attribute 'conv2d'. Use tl.nn.functional.conv2d.$"),
        ("func.jacrev", r"no attribute 'jacrev'. Use tl.func.jacobian\(f\).$"),
        ("linalg.eigvals", r"no attribute 'eigvals'. Use tl.linalg.eigvalsh\(x\) of symmetric matrices.$"),
        ("autograd.gradcheck", r"no attribute 'gradcheck'. Use tl.testing.check_grad\("),
    ],
)
def test_a_name_that_only_pytorch_has(name, message):
    with pytest.raises(AttributeError, match=message):
        operator.attrgetter(name)(tl)


def test_every_name_with_an_expression_is_pytorchs_and_not_ours():
    torch = pytest.importorskip("torch")
    for name in missing_names.EXPRESSIONS:
        operator.attrgetter(name)(torch)
        with pytest.raises(AttributeError, match="Use "):
            operator.attrgetter(name)(tl)


def test_the_expressions_have_pytorchs_values():
    torch = pytest.importorskip("torch")
    x, y = np.array([[1.5, -2.0], [0.25, 3.0]]), np.array([[0.5, 2.0], [1.0, 4.0]])
    for name in ("diagflat dist erfc exp2 fliplr flipud frac greater hypot inner less_equal not_equal ravel t "
                 "std_mean var_mean xlogy nansum nan_to_num diff").split():  # fmt: skip
        text = missing_names.EXPRESSIONS[name].split(", or")[0]
        found = eval(text, {"tl": tl, "x": tl.tensor(x), "y": tl.tensor(y)})  # noqa: S307  # text of our own table
        function, options = getattr(torch, name), {"dim": 0} if name == "diff" else {}
        both = name in ("dist", "greater", "hypot", "inner", "less_equal", "not_equal", "xlogy")
        expected = function(*map(torch.tensor, (x, y) if both else (x,)), **options)
        pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
        for mine, theirs in pairs:
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-12, atol=1e-15, err_msg=name)
