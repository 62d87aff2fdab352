"""No op takes more memory than a multiple of its arguments and results: forward, backward, second order."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.cpu import compiled_loops, compiled_sums, kernels
from tensorlite.ops import correlation
from tensorlite.pytree import tree_leaves
from tests.ops.op_table import SPECS

ENTRIES = 1_000  # of all arguments of a sample; their square would be a thousand times as many
SLACK = 60_000  # bytes of Python's own objects: nodes, closures, names
MOST, MOST_SECOND = 16, 48  # times the bytes of arguments and results; a graph of second order holds all its steps

UNSCALABLE = {
    "apply_dropout_mask", "bernoulli_cross_entropy", "bincount", "broadcast_to", "cross", "F.binary_cross_entropy",
    "F.cosine_embedding_loss", "F.hinge_embedding_loss", "F.kl_div", "F.layer_norm", "F.margin_ranking_loss",
    "F.rms_norm", "F.soft_margin_loss", "linalg.cross", "linalg.solve_triangular", "searchsorted", "sum_to_size",
    "view",
}  # fmt: skip
"""Ops whose samples have no larger form, because of sizes among the arguments. They are in ``CASES``."""

BY_PROPERTY = {"logdet", "linalg.cholesky", "linalg.eigh", "linalg.eigvalsh"}
"""Ops whose samples have a property that a larger form has not. Their ``spd.`` forms are measured."""

MULTIPLES = dict.fromkeys(("matrix_exp", "linalg.matrix_exp"), (16, 32, 128))
"""Other multiples than ``MOST``: a gradient of matrix_exp is a part of the exponential of twice as many rows."""

CONSTANT = {
    "cdist": 6_000_000, "cdist_": 6_000_000, "F.pairwise_distance": 600_000,
    **dict.fromkeys(("F.conv1d", "F.conv2d", "F.conv_transpose1d", "F.conv_transpose2d"), 14_000_000),
}  # fmt: skip
"""Bytes that an op may take at any size: cdist processes blocks of 2**18 differences, convolutions of 2**19 entries."""


def traced(f, *args):
    """Return a result, and the most bytes that were in use at a time meanwhile."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    result = f(*args)
    return result, tracemalloc.get_traced_memory()[1] - before


@pytest.fixture
def plain(monkeypatch):
    """Run the kernels whose memory can be traced, and trace it."""
    monkeypatch.setattr(kernels, "_compiled_kernels", lambda: None)
    monkeypatch.setattr(kernels, "find_compiled", lambda: None)
    monkeypatch.setattr(compiled_sums, "load_sums", lambda: None)
    monkeypatch.setattr(compiled_loops, "load_loops", lambda module: None)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peaks(f, tensors):
    """Return the bytes of arguments and results, and the peaks of the forward pass, the backward pass, both orders."""
    results, forward = traced(lambda: [y for y in tree_leaves(f(*tensors)) if isinstance(y, tl.Tensor)])
    size = sum(t.array.nbytes for t in (*tensors, *results))
    xs, ys = [t for t in tensors if t.requires_grad], [y for y in results if y.requires_grad]
    if not xs or not ys:
        return size, forward, 0, 0
    ones = [tl.ones_like(y) for y in ys]

    def gradients(create_graph):
        return tl.autograd.grad(ys, xs, ones, retain_graph=True, create_graph=create_graph, allow_unused=True)

    def second():
        first = [(g * g).sum() for g in gradients(True) if g is not None and g.requires_grad]
        return tl.autograd.grad(first, xs, allow_unused=True) if first else None

    return size, forward, traced(gradients, False)[1], traced(second)[1]


def check(f, tensors, slack=SLACK, orders=3, multiples=(MOST, MOST, MOST_SECOND)):
    size, *found = peaks(f, tensors)
    limits = [multiple * size + n * slack for multiple, n in zip(multiples, (1, 1, 3), strict=True)]
    for what, peak, limit in list(zip(("forward", "backward", "second order"), found, limits, strict=True))[:orders]:
        assert peak <= limit, f"{what}: {peak:,} bytes for {size:,} of arguments and results"


def larger(sample):
    """Return tensors for a sample whose sizes above 1 are multiplied, so that they still fit each other."""
    shapes = [i.shape for i in sample.inputs()]
    dims = max(sum(n > 1 for n in shape) for shape in shapes)
    factor = max(2, round((ENTRIES / sum(map(math.prod, shapes))) ** (1 / dims)))
    rng = np.random.default_rng(0)
    inputs = [dataclasses.replace(i, shape=tuple(n * factor if n > 1 else n for n in i.shape)) for i in sample.inputs()]
    return [tl.tensor(i.array(rng), requires_grad=i.grad) for i in inputs]


@pytest.mark.parametrize("name", SPECS)
def test_ops_of_the_table(name, plain):
    spec, measured = SPECS[name], 0
    for sample in spec.samples[:3]:
        if not any(max(i.shape, default=0) > 1 and math.prod(i.shape) for i in sample.inputs()):
            continue

        def f(*tensors, sample=sample):
            args, kwargs = sample.fill(tensors)
            return spec.f(*args, **kwargs)

        try:
            tensors = larger(sample)
            f(*tensors)
        except (ValueError, IndexError, TypeError, RuntimeError):
            continue
        measured += 1
        check(f, tensors, CONSTANT.get(name, SLACK), multiples=MULTIPLES.get(name, (MOST, MOST, MOST_SECOND)))
    assert measured or name in UNSCALABLE | BY_PROPERTY


def real(*shape):
    return tl.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def with_zeros(*shape):
    x = np.random.default_rng(0).standard_normal(shape)
    x.reshape(-1)[::17] = 0
    return tl.tensor(x, requires_grad=True)


def whole(below, *shape):
    return tl.tensor(np.random.default_rng(0).integers(0, below, shape))


def signs(*shape):
    return tl.tensor(2.0 * np.random.default_rng(1).integers(0, 2, shape) - 1.0)


def chances(*shape):
    return tl.tensor(np.random.default_rng(1).uniform(0.1, 0.9, shape), requires_grad=True)


CASES = {
    "apply_dropout_mask": (lambda x: F.dropout(x, 0.5), [real(1500)]),
    "bernoulli_cross_entropy": (F.binary_cross_entropy_with_logits, [real(40, 40), chances(40, 40)]),
    "bincount": (tl.bincount, [whole(300, 3000)]),
    "broadcast_to": (lambda x: tl.broadcast_to(x, (500, 4)), [real(500, 1)]),
    "cross": (tl.cross, [real(500, 3), real(500, 3)]),
    "linalg.solve_triangular": (
        lambda a, b: tl.linalg.solve_triangular(a, b, upper=False),
        [tl.tensor(3 * np.eye(40) + np.tril(chances(40, 40).detach().array), requires_grad=True), real(40, 9)],
    ),
    "linalg.cross": (tl.linalg.cross, [real(500, 3), real(500, 3)]),
    "F.binary_cross_entropy": (F.binary_cross_entropy, [chances(40, 40), chances(40, 40)]),
    "F.cosine_embedding_loss": (F.cosine_embedding_loss, [real(300, 5), real(300, 5), signs(300)]),
    "F.hinge_embedding_loss": (F.hinge_embedding_loss, [real(1500), signs(1500)]),
    "F.kl_div": (F.kl_div, [real(1600), chances(1600)]),
    "F.layer_norm": (lambda x, w, b: F.layer_norm(x, (40,), w, b), [real(40, 40), real(40), real(40)]),
    "F.margin_ranking_loss": (F.margin_ranking_loss, [real(1500), real(1500), signs(1500)]),
    "F.rms_norm": (lambda x, w: F.rms_norm(x, (40,), w), [real(40, 40), real(40)]),
    "F.soft_margin_loss": (F.soft_margin_loss, [real(1500), signs(1500)]),
    "searchsorted": (tl.searchsorted, [tl.arange(1500.0), real(1500)]),
    "sum_to_size": (lambda x: x.sum_to_size(400, 1), [real(400, 4)]),
    "view": (lambda x: x.view(20, 75), [real(1500)]),
    "prod of zeros": (tl.prod, [with_zeros(1500)]),
    "prod of rows with zeros": (lambda x: x.prod(1), [with_zeros(3, 500)]),
    "prod of columns with zeros": (lambda x: x.prod(0), [with_zeros(500, 3)]),
    "cumprod of zeros": (lambda x: tl.cumprod(x, 0), [with_zeros(1500)]),
    "a matrix times a stack of columns": (tl.matmul, [real(40, 50), real(60, 50, 1)]),
    "a stack of rows times a matrix in a stack": (tl.matmul, [real(60, 1, 50), real(1, 50, 40)]),
    "an einsum of vectors and columns": (
        lambda a, b, c, d: tl.einsum("i,j,ik,jk->k", a, b, c, d), [real(700), real(700), real(700, 1), real(700, 1)]
    ),
    "few ids of a narrow table": (lambda w: F.embedding(whole(200, 20_000), w), [real(200, 1)], 600_000),
    "one_hot": (lambda: F.one_hot(whole(50, 300), 50), []),
    "cross_entropy": (lambda x: F.cross_entropy(x, whole(300, 30)), [real(30, 300)]),
    "gather": (lambda x: x.gather(1, whole(300, 30, 300)), [real(30, 300)]),
    "sort": (lambda x: x.sort(0).values, [real(300, 30)]),
    "topk": (lambda x: x.topk(2, 0).values, [real(3000, 3)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(3), [real(2000)]),
    "diagonal": (lambda x: tl.einsum("ii->i", x), [real(80, 80)]),
}  # fmt: skip


def test_every_op_is_measured():
    assert UNSCALABLE <= CASES.keys()
    assert {f"spd.{name}" for name in BY_PROPERTY} <= SPECS.keys()


@pytest.mark.parametrize("case", CASES)
def test_forms_that_are_not_in_the_table(case, plain):
    check(*CASES[case])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_many_queries(causal, plain):
    """The scores of all queries are never in memory. The graph of second order holds them, so it is not measured."""
    q, k, v = real(1, 2, 600, 4), real(1, 2, 600, 4), real(1, 2, 600, 4)
    check(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), [q, k, v], 300_000, 2)


def test_windows_are_copied_in_blocks_that_fit_the_cache(monkeypatch):
    """A kernel nearly as large as its input has as many windows as entries, each nearly as large as the input."""
    monkeypatch.setattr(correlation, "_BLOCK", 4_000)
    blocks = [places for _, places in correlation._blocks(1, 300, (21, 22))]
    counts = [math.prod(p.stop - p.start for p in places) for places in blocks]
    assert max(counts) == 13
    assert sum(counts) == 21 * 22


def test_convolutions_in_blocks(monkeypatch):
    x, w = real(2, 2, 12, 13), real(3, 2, 9, 8)
    found = []
    for block in (1 << 19, 1000, 1):
        monkeypatch.setattr(correlation, "_BLOCK", block)
        y = F.conv2d(x, w, stride=2, padding=3)
        found.append([y, *tl.autograd.grad((y * y).sum(), [x, w])])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a.detach().array, b.detach().array, rtol=1e-9, atol=1e-9)
