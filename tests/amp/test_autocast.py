"""The context autocast: dtypes, gradients, nesting, threads, checkpoints, the cache, other devices."""

import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.autograd.autocast_mode import autocast_mode, casting

LOW = tl.bfloat16


def on(**kwargs):
    return tl.autocast("cpu", dtype=LOW, **kwargs)


def leaf(*shape, seed=0):
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), requires_grad=True)


def product_dtype(x=None):
    """Return the dtype of a product now."""
    x = tl.ones(2, 2) if x is None else x
    return (x @ x).dtype


# ---- what is computed -----------------------------------------------------------------------


def test_a_step_has_float32_parameters_and_gradients():
    tl.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
    x, y = tl.randn(5, 8), tl.tensor([0, 1, 2, 3, 0])
    expected = F.cross_entropy(model(x), y)
    expected.backward()
    exact = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with on():
        hidden = model[0](x)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
    loss.backward()
    assert (hidden.dtype, model[1](hidden).dtype, logits.dtype, loss.dtype) == (LOW, LOW, LOW, tl.float32)
    assert abs(loss.item() - expected.item()) < 0.01
    for p, g in zip(model.parameters(), exact, strict=True):
        assert p.dtype == p.grad.dtype == tl.float32
        assert tl.linalg.norm(p.grad - g) < 0.02 * tl.linalg.norm(g)


def test_saved_values_are_the_converted_ones_and_gradients_come_back():
    x, w = leaf(3, 4), leaf(4, 5, seed=1)
    with on():
        y = x @ w
    saved = [v for v in y.grad_fn.saved if isinstance(v, np.ndarray)]
    assert {v.dtype for v in saved} == {LOW}
    y.sum().backward()
    rounded = w.detach().to(LOW).float().sum(1)
    assert x.grad.dtype == tl.float32
    assert np.allclose(x.grad.numpy(), np.broadcast_to(rounded.numpy(), (3, 4)), rtol=1e-2)


def test_float64_integers_and_raw_arrays_are_not_converted():
    with on():
        assert product_dtype(tl.ones(2, 2, dtype=tl.float64)) == tl.float64
        assert tl.exp(tl.ones(2, dtype=tl.float64)).dtype == tl.float64
        assert product_dtype(tl.ones(2, 2, dtype=tl.int64)) == tl.int64
        assert tl.tensor([1, 2]).sum().dtype == tl.int64
        assert tl.matmul(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)).dtype == np.float32
        with pytest.raises(tl.DTypeError, match="one dtype"):
            tl.ones(2, 2, dtype=tl.float64) @ tl.ones(2, 2)


def test_arguments_of_different_dtypes_are_combined():
    low, wide = tl.ones(2, 3, dtype=LOW), tl.ones(3, 3)
    bias = tl.ones(3)
    with on():
        assert F.linear(low, wide, bias).dtype == LOW
        assert tl.mm(low, wide).dtype == LOW
        assert tl.einsum("ij,jk->ik", low, wide).dtype == LOW
        assert F.layer_norm(low, (3,), bias, bias).dtype == tl.float32
        assert F.conv1d(low[None], tl.ones(1, 2, 1), tl.ones(1)).dtype == LOW
        assert (low + bias).dtype == tl.float32
        mask = tl.zeros(2, 2)
        assert F.scaled_dot_product_attention(low, low, low, attn_mask=mask).dtype == LOW
    with pytest.raises(tl.DTypeError):
        F.linear(low, wide, bias)


def test_in_place_methods_are_as_without_autocast():
    x, y = tl.ones(3, dtype=LOW), tl.ones(3)
    with on():
        assert x.exp_().dtype == LOW
        assert y.exp_().dtype == tl.float32
        y[1:] = x[1:]
        x.copy_(y)
        y += x
        y @= tl.eye(3)
    assert (x.dtype, y.dtype) == (LOW, LOW)  # `@=` has no in-place form, so y is a new tensor


def test_batch_norm_keeps_float32_statistics():
    layer = nn.BatchNorm1d(3)
    x = tl.rand(8, 3) + 1000.25
    with on():
        y = layer(x.to(LOW))
    assert y.dtype == LOW
    assert layer.running_mean.dtype == tl.float32
    assert np.allclose(layer.running_mean.numpy(), 0.1 * x.to(LOW).float().mean(0).numpy(), rtol=1e-6)


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_compute_in_the_lower_dtype(cell):
    layer = cell(3, 4)
    with on():
        out, state = layer(tl.ones(5, 2, 3))
    assert {out.dtype} | {s.dtype for s in (state if isinstance(state, tuple) else (state,))} == {LOW}
    out.float().sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {tl.dtypes.float32}


# ---- gradients ------------------------------------------------------------------------------


def test_backward_inside_the_context_gives_the_same_gradients():
    x, w = leaf(4, 4), leaf(4, 4, seed=1)

    def loss():
        return tl.softmax(x @ w, -1).exp().mean()

    with on():
        inside = tl.autograd.grad(loss(), (x, w))
        y = loss()
    outside = tl.autograd.grad(y, (x, w))
    for a, b in zip(inside, outside, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_hooks_see_gradients_of_the_dtype_of_the_value():
    x, w, seen = leaf(2, 2), leaf(2, 2, seed=1), []
    with on():
        y = x @ w
        y.register_hook(lambda g: seen.append((g.dtype, tl.is_autocast_enabled("cpu"))))
        x.register_hook(lambda g: seen.append((g.dtype, tl.is_autocast_enabled("cpu"))))
        y.float().sum().backward()
    assert seen == [(LOW, True), (tl.float32, True)]


def test_higher_derivatives_and_functions_that_differentiate():
    x, w = leaf(3, 3), leaf(3, 3, seed=1)

    def f(x):
        return ((x @ w) ** 2).sum()

    def compared(g):
        expected = g()
        with on():
            found = g()
        assert found.dtype == tl.float32
        assert tl.linalg.norm(found - expected) <= 0.02 * tl.linalg.norm(expected)

    v = tl.ones(3, 3)
    compared(lambda: tl.func.grad(f)(x))
    compared(lambda: tl.func.vjp(f, x)[1](tl.tensor(1.0))[0])
    compared(lambda: tl.func.jvp(f, (x,), (v,))[1])
    compared(lambda: tl.func.hvp(f, (x,), (v,))[1])
    compared(lambda: tl.func.hessian(f)(x).reshape(9, 9))

    def penalty():
        (g,) = tl.autograd.grad(f(x), x, create_graph=True)
        return tl.autograd.grad((g * g).sum(), w)[0]

    compared(penalty)


def test_a_checkpoint_computes_again_as_the_first_time():
    x, w = leaf(4, 4), leaf(4, 4, seed=1)

    def block(x):
        return F.softmax(x @ w, -1) @ w

    with on():
        expected = tl.autograd.grad(block(x).float().sum(), (x, w))
        inside = tl.checkpoint(block, x)
    with on(enabled=False), on():
        again = tl.checkpoint(block, x)
    for y in (inside, again):
        for a, b in zip(tl.autograd.grad(y.float().sum(), (x, w)), expected, strict=True):
            assert np.array_equal(a.numpy(), b.numpy())
    plain = tl.checkpoint(block, x)
    with on():  # a plain checkpoint computes again in float32, also inside a context
        plain.sum().backward()
    assert not casting.active


def test_no_grad_and_inference_mode():
    w = leaf(2, 2)
    with on(), tl.no_grad():
        assert product_dtype(w) == LOW
    with on(), tl.inference_mode():
        assert product_dtype(w) == LOW
    with on():
        with tl.no_grad():
            w @ w
        (w @ w).float().sum().backward()
    assert w.grad is not None


# ---- ops of users ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [(None, "float32"), ("follow", "float32"), ("lower", "low"),
                                             ("float32", "float32"), ("widest", "float32")])  # fmt: skip
def test_an_op_of_a_user_has_the_class_that_it_names(kind, dtype):
    @tl.op(lambda g, y: g * y, lambda g, x: g * x, autocast=kind)
    def times(xp, x, y):
        seen.append((x.dtype, y.dtype))
        return x * y

    seen = []
    x, y = leaf(3), leaf(3, seed=1)
    with on():
        out = times(x, y)
    assert out.dtype == (LOW if dtype == "low" else tl.dtypes.float32)
    out.sum().backward()
    assert x.grad.dtype == y.grad.dtype == tl.float32
    assert len(set(seen[0])) == 1


def test_a_wrong_class_is_an_error():
    with pytest.raises(ValueError, match="autocast must be"):
        tl.op(autocast="half")


def test_an_op_of_a_user_with_the_name_of_an_op_of_the_library_follows_its_inputs():
    @tl.op(lambda g: g)
    def linear(xp, x):
        return x + 0

    with on():
        assert linear(tl.ones(2)).dtype == tl.float32


# ---- the mode -------------------------------------------------------------------------------


def test_contexts_nest_and_restore_the_mode_after_errors():
    assert not tl.is_autocast_enabled("cpu")
    with on():
        with tl.autocast("cpu", enabled=False):
            assert not tl.is_autocast_enabled("cpu")
            assert product_dtype() == tl.float32
            with tl.autocast("cpu"):  # its dtype is that of the surrounding context, as in PyTorch
                assert product_dtype() == LOW
        assert product_dtype() == LOW
        with pytest.raises(KeyError), tl.autocast("cpu", enabled=False):
            raise KeyError
        assert tl.is_autocast_enabled("cpu")
        with pytest.raises(tl.ShapeError):
            tl.ones(2, 3) @ tl.ones(2, 3)
    assert not tl.is_autocast_enabled("cpu")
    assert product_dtype() == tl.float32
    assert (casting.active, autocast_mode.depth) == (0, 0)


def test_one_context_object_can_be_entered_again_and_by_several_threads():
    context, seen = on(), []

    def enter():
        with context:
            barrier.wait(10)
            seen.append(product_dtype())
            barrier.wait(10)
        seen.append(product_dtype())

    with context, context:
        assert product_dtype() == LOW
    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=enter) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    assert sorted(map(str, seen)) == sorted(map(str, [LOW, LOW, tl.float32, tl.float32]))
    assert not casting.active


def test_the_mode_belongs_to_the_thread():
    seen = []
    with on():
        t = threading.Thread(target=lambda: seen.extend((tl.is_autocast_enabled("cpu"), product_dtype())))
        t.start()
        t.join(10)
    assert seen == [False, tl.float32]


def test_a_decorated_function_runs_in_the_context():
    @on()
    def f(x):
        """Multiply."""
        return x @ x

    @tl.autocast("cpu", enabled=False)
    def full(x):
        return x @ x

    assert (f.__name__, f.__doc__) == ("f", "Multiply.")
    assert f(tl.ones(2, 2)).dtype == LOW
    with on():
        assert full(tl.ones(2, 2)).dtype == tl.float32
        assert f(x=tl.ones(2, 2)).dtype == LOW


def test_functions_that_run_later_cannot_be_decorated():
    def generate():
        yield 1

    async def wait():
        await asyncio.sleep(0)

    async def generate_later():
        yield 1

    for f in (generate, wait, generate_later):
        with pytest.raises(TypeError, match=f"got the .* {f.__name__}, which runs after the call"):
            on()(f)


def test_default_dtypes_are_those_of_pytorch():
    assert tl.get_autocast_dtype("cuda") == tl.float16
    with on():
        assert tl.get_autocast_dtype("cpu") == LOW
        with tl.autocast("strict"):
            assert tl.get_autocast_dtype("strict") == tl.float16
            assert tl.get_autocast_dtype("cpu") == LOW
    assert tl.amp.is_autocast_available("cuda")
    assert not tl.amp.is_autocast_available("tpu")
    assert not tl.amp.is_autocast_available("cuda:0")


@pytest.mark.parametrize(("value", "error", "message"), [
    ("tpu", tl.DeviceError, "autocast: expected a type of device without an index, such as 'cpu', got 'tpu'"),
    ("cpu:0", tl.DeviceError, "got 'cpu:0'"),
    (0, ValueError, "autocast: expected a type of device, such as 'cpu', got 0"),
])  # fmt: skip
def test_wrong_device_types_are_errors(value, error, message):
    with pytest.raises(error, match=message):
        tl.autocast(value)


@pytest.mark.parametrize("dtype", [tl.float32, tl.float64, tl.int64])
def test_another_dtype_warns_and_switches_autocast_off(dtype):
    with pytest.warns(RuntimeWarning, match=f"expected the dtype bfloat16 or float16, got {dtype}"):
        context = tl.autocast("cpu", dtype=dtype)
    with context:
        assert not tl.is_autocast_enabled("cpu")
        assert product_dtype() == tl.float32
    assert tl.autocast("cpu", dtype=dtype, enabled=False).enabled is False  # no warning


def test_types_of_devices_are_independent():
    x = tl.ones(2, 2, device="strict")
    with tl.autocast("strict"):
        assert product_dtype() == tl.float32
        assert product_dtype(x) == tl.float16
        with on():
            assert product_dtype() == LOW
            with tl.autocast("strict", enabled=False):
                assert product_dtype(x) == tl.float32
                assert product_dtype() == LOW
    assert product_dtype(x) == tl.float32


# ---- the cache ------------------------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch):
    """Return a list to which each conversion of an array adds its size."""
    from tensorlite.autograd import autocast_mode as module

    found, convert = [], module._convert

    def counted(array, dtype):
        found.append(array.size)
        return convert(array, dtype)

    monkeypatch.setattr(module, "_convert", counted)
    return found


@pytest.mark.parametrize(("kept", "expected"), [(True, 1), (False, 4)])
def test_a_weight_is_converted_once_in_a_context(conversions, kept, expected):
    w, x = leaf(2, 2), [tl.ones(3, 2) for _ in range(4)]
    with on(cache_enabled=kept):
        for part in x:
            part @ w
            with on(), tl.no_grad():
                pass
    assert conversions.count(4) == expected
    assert conversions.count(6) == 4
    assert not autocast_mode.converted
    with on():
        x[0] @ w
    assert conversions.count(4) == expected + 1


def test_an_activation_that_several_layers_read_is_converted_once(conversions):
    x, a, b = tl.ones(3, 2), leaf(2, 2), leaf(2, 2)
    with on():
        y, z = x @ a, x @ b
        assert conversions.count(6) == 1
        x.add_(1.0)
        again = x @ a
    assert conversions.count(6) == 2
    assert np.allclose(again.detach().float().numpy(), 2 * y.detach().float().numpy(), rtol=1e-2)
    assert z.dtype == LOW


def test_a_weight_that_was_changed_is_converted_again():
    w, x = leaf(2, 2), tl.ones(1, 2)
    with on():
        before = x @ w
        with tl.no_grad():
            w.mul_(2.0)
        after = x @ w
        w.data = w.data * 2.0
        last = x @ w
    for y, factor in ((after, 2.0), (last, 4.0)):
        assert np.allclose(y.detach().float().numpy(), factor * before.detach().float().numpy(), rtol=1e-2)


def test_an_optimizer_step_inside_the_context_is_seen():
    w = nn.Parameter(tl.ones(2, 2))
    optimizer = tl.optim.SGD([w], lr=0.25)
    with on():
        for _ in range(2):
            loss = (tl.ones(1, 2) @ w).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert loss.item() == 3.0


# ---- processors -----------------------------------------------------------------------------


def test_a_gpu_that_is_not_there_is_a_warning():
    if tl.cuda_is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(RuntimeWarning, match="found none, so this context is off"):
        context = tl.autocast("cuda")
    with context:
        assert not tl.is_autocast_enabled("cuda")
