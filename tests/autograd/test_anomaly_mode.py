"""Anomaly detection: the op that made the first NaN or infinity, and the line that called it."""
import threading

import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.errors import AnomalyError

INF = float("inf")


def line_of(marker: str) -> str:
    """Return ``file:line`` of the only line of this file that ends with the marker."""
    with open(__file__, encoding="utf-8") as file:
        (number,) = [k for k, text in enumerate(file, 1) if text.rstrip().endswith("# " + marker)]
    return f"{__file__}:{number}"


def test_the_forward_op_and_its_line_are_named():
    x = tl.tensor([-1.0, 2.0])
    with tl.detect_anomaly(), pytest.raises(AnomalyError) as error:
        (x * 2).log()  # here: log of a negative number
    assert str(error.value).startswith("log: the forward pass made the first NaN")
    assert line_of("here: log of a negative number") in str(error.value)


def test_an_infinity_that_a_gradient_meets_is_found():
    x = tl.ones(2, requires_grad=True)
    with tl.detect_anomaly():
        loss = (x / tl.zeros(2)).sum()  # here: divided by zero
        with pytest.raises(AnomalyError, match=r"^true_divide: .* first infinity, and a gradient arrives") as error:
            loss.backward()
    assert line_of("here: divided by zero") in str(error.value)


def test_the_op_that_made_an_infinity_behind_a_nan_is_named():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    with tl.detect_anomaly(), pytest.raises(AnomalyError) as error:
        large = (x * 1e30) * 1e30  # here: an overflow
        y = large.reshape(2, 1) * tl.ones(2)
        (y.max() + 1.0 - y).sum()
    lines = str(error.value).splitlines()
    assert lines[0] == "sub: the forward pass made the first NaN here"
    assert lines[2] == "  its input has an infinity, which mul made"
    assert line_of("here: an overflow") in lines[3]


def log_of_a_mask(x):
    return (x + tl.tensor([0.0, 1.0]).log()).softmax(-1)[1]


def a_metric(x):
    tl.log(x - x)
    return x.sum()


def a_constant_factor_of_zero(x):
    return tl.where(tl.tensor([True, False]), x, 1 / tl.zeros(2)).sum()


def an_overflow_without_weight(x):
    return ((x * 1e30) * 1e30 + 1.0)[:0].sum() + x.sum()


@pytest.mark.parametrize("f", [log_of_a_mask, a_metric, a_constant_factor_of_zero, an_overflow_without_weight])
def test_an_infinity_that_no_gradient_meets_raises_nothing(f):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    with tl.detect_anomaly():
        f(x).backward()
    assert x.grad.isfinite().all()


def test_the_error_names_the_users_function():
    def norm_of(x):
        return x.sqrt()  # here: inside a function

    with tl.detect_anomaly(), pytest.raises(AnomalyError, match=r"in norm_of: return x\.sqrt\(\)") as error:
        norm_of(tl.tensor([-1.0]))
    assert line_of("here: inside a function") in str(error.value)


def test_the_error_names_the_users_line_not_a_layer():
    with tl.detect_anomaly(), pytest.raises(AnomalyError) as error:
        F.layer_norm(tl.full((2, 3), float("inf")), (3,))  # here: a layer gets infinities
    assert line_of("here: a layer gets infinities") in str(error.value)


def test_the_backward_op_its_argument_and_the_line_of_its_forward_call_are_named():
    x = tl.tensor([0.0, 4.0], requires_grad=True)
    with tl.detect_anomaly():
        y = x.sqrt()  # here: the slope is infinite
        loss = y.sum()
        with pytest.raises(AnomalyError) as error:
            loss.backward()
    assert str(error.value).startswith("sqrt: the backward pass made the first infinity, in the gradient of 'x'")
    assert line_of("here: the slope is infinite") in str(error.value)


def test_the_error_for_a_graph_recorded_outside_says_how_to_see_the_line():
    x = tl.tensor([0.0], requires_grad=True)
    loss = x.sqrt().sum()
    with tl.detect_anomaly(), pytest.raises(AnomalyError, match=r"run the forward pass under detect_anomaly\(\)"):
        loss.backward()


def test_the_backward_of_a_variadic_op_names_the_tensor():
    @tl.op(lambda g, index: g / 0.0 if index == 1 else g)
    def total(xp, *terms):
        return sum(terms)

    xs = [tl.ones(2, requires_grad=True) for _ in range(3)]
    with tl.detect_anomaly(), pytest.raises(AnomalyError, match=r"^total: .*in the gradient of 'terms\[1\]'"):
        total(*xs).sum().backward()


def test_second_derivatives_are_checked():
    x = tl.tensor([0.0], requires_grad=True)
    with tl.detect_anomaly():
        (g,) = tl.autograd.grad((x**1.5).sum(), x, create_graph=True)
        with pytest.raises(AnomalyError, match=r"the backward pass made the first"):
            tl.autograd.grad(g.sum(), x)


def test_every_result_of_an_op_is_checked():
    @tl.op(lambda g: g[0] + g[1], multi_output=True)
    def both(xp, x):
        return x + 1, xp.full_like(x, INF)

    with tl.detect_anomaly():
        first, second = both(tl.zeros(2, requires_grad=True))  # here: of several
        first.sum().backward(retain_graph=True)
        with pytest.raises(AnomalyError, match=r"^both: .* infinity") as error:
            second.sum().backward()
    assert line_of("here: of several") in str(error.value)


def test_an_op_that_passes_on_a_nonfinite_input_raises_nothing():
    mask = tl.tensor([[False, True], [False, False]])
    scores = tl.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    with tl.detect_anomaly():
        p = scores.masked_fill(mask, -INF).softmax(-1)
        (p * tl.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
        q = tl.where(mask, -INF, scores).log_softmax(-1)
        q[1].sum().backward()
    assert p[0].tolist() == [1.0, 0.0]
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("create_graph", [False, True])
def test_attention_with_a_mask_raises_nothing(create_graph):
    q, k, v = (tl.randn(2, 3, 4, 5, requires_grad=True) for _ in range(3))
    mask = tl.zeros(4, 4).masked_fill(tl.triu(tl.ones(4, 4), 1).bool(), -INF)
    with tl.detect_anomaly():
        for options in ({"is_causal": True}, {"attn_mask": mask}, {"attn_mask": mask == 0}):
            out = F.scaled_dot_product_attention(q, k, v, **options)
            found = tl.autograd.grad(out.sum(), (q, k, v), create_graph=create_graph)
            assert all(g.isfinite().all() for g in found)


def test_a_nan_among_the_inputs_raises_nothing():
    with tl.detect_anomaly():
        y = tl.tensor([float("nan"), 1.0]) * 2
    assert y.isnan().tolist() == [True, False]


def test_integers_are_not_checked():
    with tl.detect_anomaly():
        assert (tl.tensor([1, 2]) // 1).tolist() == [1, 2]


def test_detection_ends_with_the_block_also_after_an_error():
    x = tl.tensor([-1.0])
    with pytest.raises(AnomalyError), tl.detect_anomaly():
        x.log()
    assert x.log().isnan().all()
    assert tl.autograd.anomaly_mode.enabled == 0


def test_blocks_nest_and_can_be_used_again():
    x, anomalies = tl.tensor([-1.0]), tl.detect_anomaly()
    with anomalies:
        with anomalies:
            pass
        with pytest.raises(AnomalyError):
            x.log()
    assert x.log().isnan().all()


def test_other_threads_are_not_checked():
    seen = []

    def work():
        seen.append(tl.tensor([-1.0]).log().isnan().item())

    with tl.detect_anomaly():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [True]


def test_values_and_gradients_do_not_change():
    def run():
        x = tl.tensor([0.5, 1.5], requires_grad=True)
        y = (x.exp() * x.log()).sum()
        y.backward()
        return y.tolist(), x.grad.tolist()

    with tl.detect_anomaly():
        watched = run()
    assert watched == run()


def test_the_traceback_is_short():
    with tl.detect_anomaly(), pytest.raises(AnomalyError) as error:
        tl.tensor([-1.0]).log()
    assert len(error.traceback) <= 4
    assert error.value.__cause__ is None
    assert error.value.__context__ is None
