"""Tests of the strategies of tensorlite.testing: examples are valid, all kinds are drawn, and examples shrink."""
import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import (
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
from tensorlite.testing.strategies.signatures import Signature

FINITE = ["real", "moderate", "nonzero", "positive", "unit"]
SEARCH = settings(max_examples=2000, database=None, derandomize=True, deadline=None)


def exists(strategy, condition):
    """Return the simplest example that fulfils the condition. Raise if there is none."""
    return find(strategy, condition, settings=SEARCH)


def drawn(strategy, count=1000):
    """Return ``count`` examples, the same in every run."""
    found = []

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(x):
        found.append(x)

    collect()
    return found


# ---- entries --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FINITE)
def test_numbers_are_multiples_of_one_eighth_and_of_all_sizes(kind):
    values = {x for entries in drawn(tensors((20,), elements=kind), 300) for x in entries.tolist()}
    assert len(values) > 10
    assert all(x * 8 == int(x * 8) for x in values if abs(x) >= 0.125)
    assert {0.03125, 2.0**-10, 2.0**-24} < values
    large = {x for x in values if abs(x) > 4}
    assert bool(large) == (kind in {"real", "nonzero", "positive"})
    for low, high in [(4, 20), (20, 800), (800, 5000), (5000, 1e6)] if large else []:
        assert any(low < x < high for x in large)
        assert any(low < -x < high for x in large) == (kind != "positive")
    assert (0.0 in values) == (kind in {"real", "moderate", "unit"})
    assert all(x > 0 for x in values) == (kind == "positive")
    assert (max(map(abs, values)) < 1) == (kind == "unit")


@pytest.mark.parametrize(
    ("dtype", "strategy", "fits"),
    [
        (tl.float32, st.floats(0, 1, exclude_max=True), lambda x: 0 <= x < 1),
        (tl.float32, st.floats(0, 1, exclude_min=True), lambda x: 0 < x <= 1),
        (tl.float32, st.floats(0.1, 0.2), lambda x: 0.1 <= x <= 0.2),
        (tl.float16, st.floats(-10, 10, exclude_min=True, exclude_max=True), lambda x: -10 < x < 10),
        (tl.float32, st.floats(allow_infinity=False, allow_nan=False), math.isfinite),
        (tl.float32, st.floats(0, 1, exclude_max=True) | st.just(3.0), lambda x: 0 <= x < 1 or x == 3),
        (tl.float32, st.sampled_from([0.1, 0.3]), lambda x: x in np.float32([0.1, 0.3])),
        (tl.float32, st.integers(), math.isfinite),
        (tl.float32, st.floats(0, 1, allow_subnormal=False), lambda x: x == 0 or x >= np.finfo(np.float32).tiny),
    ],
)
def test_numbers_stay_within_their_bounds_in_a_narrow_dtype(dtype, strategy, fits):
    entries = [x for array in drawn(tensors((20,), dtype, strategy), 150) for x in array.numpy()]
    assert all(fits(float(x)) for x in entries)
    assert len(set(entries)) > 1


@pytest.mark.parametrize(
    ("dtype", "strategy", "message"),
    [
        (tl.float32, st.floats(0, 1).map(lambda x: x * x), r"expected numbers of float32, got .*st.floats\(width=32\)"),
        (tl.int8, st.integers(), r"expected numbers of int8, got .*st.integers\(-128, 127\)"),
        (tl.int64, st.floats(0, 1), "expected numbers of int64, got 0."),
        (None, st.lists(st.floats(), min_size=2, max_size=2), "expected a strategy for one number, got arrays"),
    ],
)
def test_numbers_that_a_dtype_lacks_are_an_error(dtype, strategy, message):
    with pytest.raises(ValueError, match=message):
        drawn(tensors((5,), dtype, strategy), 50)


def test_any_has_special_values():
    for condition in (math.isnan, math.isinf, lambda x: x == 0 and math.copysign(1, x) < 0, lambda x: 0 < x < 1e-20):
        exists(elements("any"), condition)


def test_integers_and_booleans():
    assert set(drawn(elements("int"))) == set(range(-8, 9))
    assert set(drawn(elements("int", below=3))) == {0, 1, 2}
    assert {type(x) for x in drawn(elements("bool"), 20)} == {bool}


def test_entries_are_often_at_kinks_and_otherwise_far_from_them():
    values = [x for x in drawn(tensors((20,), elements=elements(kinks=[0.3, 2.5]))) for x in x.tolist()]
    at = [x for x in values if x in (0.3, 2.5)]
    assert 0.2 < len(at) / len(values) < 0.35
    assert all(abs(x - p) >= 0.125 for x in values if x not in (0.3, 2.5) for p in (0.3, 2.5))


@given(st.lists(st.floats(-4, 4), max_size=4), st.data())
def test_away_from_avoids_its_points(points, data):
    x = data.draw(tensors((8,), elements=away_from(points, "real"))).numpy()
    assert all(abs(x - p).min() >= 0.125 for p in points)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: elements("reel"), r"elements: unknown kind 'reel'. Use one of 'real', "),
        (lambda: elements("real", below=3), "expected below from 1 to 256 for the kind 'int', got 3 for 'real'"),
        (lambda: away_from([k / 8 for k in range(-8, 9)], "unit"), "no number of the kind 'unit'"),
        (lambda: tensors((2,), elements="reel"), "unknown kind"),
        (lambda: shapes(3, 2), "shapes: dims: expected 0 <= minimum <= maximum, got 3 and 2"),
        (lambda: shapes(min_size=-1), "shapes: sizes: expected 0 <= minimum <= maximum, got -1 and 3"),
        (lambda: broadcastable(0), "expected a count of 1 or more, got 0"),
        (lambda: axes(2, ["plus"]), "axes: expected some of the kinds 'int', "),
        (lambda: indices((2,), []), "indices: expected some of the kinds 'int', "),
        (lambda: matching("(m),(m)", elements=["real"]), r"elements has 1 kinds for the 2 inputs of '\(m\),\(m\)'"),
    ],
)
def test_wrong_arguments_are_an_error_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_entries_may_come_from_any_strategy():
    x = exists(tensors((3,), elements=st.sampled_from([0.3, 0.7])), lambda x: bool(x[1] > 0.5))
    assert x.tolist() == [0.3, 0.7, 0.3]
    with pytest.raises(TypeError, match="expected elements to be a kind, a strategy or tie_free"):
        tensors((2,), elements=0.5)


@given(shapes(1, 3), st.data())
def test_tie_free_rows(shape, data):
    axis = data.draw(axes(len(shape), ["int", "negative", "none"]))
    x = data.draw(tensors(shape, elements=tie_free(axis))).numpy()
    assert x.shape == shape
    if axis is None:
        x, axis = x.ravel(), 0
    assert (np.diff(np.sort(x, axis), axis=axis) >= 0.125).all()


def test_tie_free_has_every_order_and_ties_elsewhere():
    orders = {tuple(np.argsort(x.numpy())) for x in drawn(tensors((3,), elements=tie_free()))}
    assert len(orders) == 6
    exists(tensors((2, 2), elements=tie_free(-1)), lambda x: bool((x[0] == x[1]).any()))
    with pytest.raises(ValueError, match=r"tie_free: axis 2 is out of range for the shape \(2, 3\)"):
        exists(tensors((2, 3), elements=tie_free(2)), lambda x: True)


# ---- tensors and their memory ---------------------------------------------------------------


def layout(array):
    """Return the names of the memory layouts of an array."""
    if array.ndim == 0 or not array.size:
        return {"0-d" if not array.ndim else "empty"}
    words = set()
    wide = [(size, stride) for size, stride in zip(array.shape, array.strides) if size > 1]
    words |= {"reversed"} if any(stride < 0 for _, stride in wide) else set()
    words |= {"broadcast"} if any(stride == 0 for _, stride in wide) else set()
    if not words:
        words = {"C"} if array.flags.c_contiguous else {"F"} if array.flags.f_contiguous else {"strided"}
    return words


def test_every_layout_is_drawn():
    found = Counter(word for x in drawn(tensors()) for word in layout(x.numpy()))
    assert set(found) == {"C", "F", "strided", "reversed", "broadcast", "0-d", "empty"}
    assert min(found.values()) >= 20


def test_layouts_can_be_switched_off():
    assert all(x.numpy().flags.c_contiguous for x in drawn(tensors(layouts=False), 200))


def test_layouts_are_copies_of_the_whole_array():
    array = np.arange(6.0).reshape(2, 3, 1)
    found = drawn(layouts(array), 200)
    assert all(np.array_equal(x, array) and not np.shares_memory(x, array) for x in found)
    assert set().union(*map(layout, found)) == {"C", "F", "strided", "reversed"} - ({"F"} if array.ndim < 2 else set())
    assert "broadcast" in set().union(*map(layout, drawn(layouts(np.ones((2, 3))), 200)))
    for special in (np.array(2.5), np.zeros((0, 3))):
        assert all(np.array_equal(x, special) and x.shape == special.shape for x in drawn(layouts(special), 50))


@given(shapes(), st.sampled_from([None, tl.float32, tl.float64, tl.int64, tl.uint8, tl.bool]), st.data())
def test_tensors_are_as_requested(shape, dtype, data):
    grad = dtype in (None, tl.float32, tl.float64)
    x = data.draw(tensors(shape, dtype, requires_grad=grad))
    assert x.shape == shape
    assert x.dtype == (dtype or tl.float64)
    assert x.requires_grad == grad


def test_a_kind_decides_the_dtype():
    assert [exists(tensors((2,), elements=kind), lambda x: True).dtype for kind in ("int", "bool", "real")] == [
        tl.int64, tl.bool, tl.float64,
    ]  # fmt: skip
    with pytest.raises(tl.DTypeError, match="only floating point tensors can require grad, got int64"):
        tensors((2,), tl.int64, requires_grad=True)


def test_the_shape_may_be_drawn():
    assert {x.shape for x in drawn(tensors(st.sampled_from([(2,), (1, 3)])), 50)} == {(2,), (1, 3)}


# ---- shapes ---------------------------------------------------------------------------------


def test_shapes_use_all_sizes_within_their_bounds():
    found = drawn(shapes(1, 2, min_size=0, max_size=2), 500)
    assert {len(shape) for shape in found} == {1, 2}
    assert {size for shape in found for size in shape} == {0, 1, 2}
    assert () in drawn(shapes())
    assert {size for shape in drawn(shapes(min_size=2, max_size=3)) for size in shape} == {2, 3}
    assert sum(0 in shape for shape in drawn(shapes())) < 250  # empty tensors find few bugs


def test_broadcastable_shapes_broadcast_in_all_cases():
    found = drawn(broadcastable(3))
    for shapes_ in found:
        np.broadcast_shapes(*shapes_)  # raises if they do not
    assert any(len({len(s) for s in three}) > 1 for three in found)
    assert any(1 in a and a != b and len(a) == len(b) for a, b, _ in found)
    assert any(0 in np.broadcast_shapes(*three) for three in found)
    assert any(a == b == c and len(a) > 1 for a, b, c in found)
    assert all(len(s) >= 2 for three in drawn(broadcastable(3, min_dims=2)) for s in three)


@given(matching("(...,m,k), (k,n>=1), (2), ()"))
def test_matching_shapes(found):
    a, b, c, d = found
    assert 2 <= len(a) <= 4
    assert a[-1] == b[0]
    assert b[1] >= 1
    assert (c, d) == ((2,), ())


def test_dots_stand_for_dimensions_that_broadcast():
    found = drawn(matching("(...,n),(...)->(...,n)"))
    assert {len(b) for _, b in found} == {0, 1, 2}
    for a, b in found:
        np.broadcast_shapes(a[:-1], b)
    assert any(a[:-1] != b for a, b in found)
    assert any(a[:-1] == b != () for a, b in found)


def test_named_sizes_use_their_range():
    found = drawn(matching("(m,n>=2)"), 500)
    assert {m for (m, _), in found} == {0, 1, 2, 3}
    assert {n for (_, n), in found} == {2, 3, 4}


LONG_ROWS = st.composite(lambda draw: Signature.parse("(n)").draw(draw, long_rows=True)[0][0][0])()


def test_most_long_rows_have_more_than_32_entries():
    found = Counter(n for n in drawn(LONG_ROWS, 400) if n > 3)
    assert set(found) == {5, 9, 17, 23, 33, 34, 35, 37, 39, 41}
    assert sum(count for n, count in found.items() if n > 32) > 0.5 * found.total()


@pytest.mark.parametrize(("least", "found"), [(4, 5), (6, 9), (10, 17), (18, 23), (24, 33), (36, 37), (40, 41)])
def test_long_rows_shrink_to_the_shortest_one(least, found):
    assert exists(LONG_ROWS, lambda n: n >= least) == found


@given(matching("(m,n),(n),(m)", elements=["real", "int", tie_free()]))
def test_matching_tensors(found):
    x, y, z = found
    assert x.shape == (z.shape[0], y.shape[0])
    assert [t.dtype for t in found] == [tl.float64, tl.int64, tl.float64]
    assert len(set(z.tolist())) == len(z.tolist())


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("m,n->m", "expected brackets with commas between them, got 'm,n'"),
        ("", "expected brackets"),
        ("(m)(n)", "expected brackets"),
        ("(m,(n))", "expected brackets"),
        ("(m)->", "expected brackets with commas between them, got ''"),
        ("(m)->(m)->(m)", "expected brackets"),
        ("(m,)", "'' is not a dimension"),
        ("(2m)", "'2m' is not a dimension"),
        ("(m+1)", "'m+1' is not a dimension"),
        ("(-1)", "'-1' is not a dimension"),
        ("(m,...)", "'...' must be the first in its brackets"),
        ("(m)->(n)", "the result has the dimension n, which no input has"),
        ("(m)->(...,m)", "the result has '...', which no input has"),
        ("(n>=1),(n>=2)", "n has two minima, 1 and 2"),
    ],
)
def test_an_invalid_signature_is_explained(signature, message):
    with pytest.raises(ValueError, match="signature") as error:
        matching(signature)
    assert str(error.value).startswith(f"signature {signature!r}: {message}")
    assert str(error.value).endswith("A valid example: '(...,m,k),(k,n>=1)->(...,m,n)'")


# ---- dimensions and indices -----------------------------------------------------------------


@given(st.integers(0, 3), st.data())
def test_axes_are_valid(ndim, data):
    dim = data.draw(axes(ndim))
    tl.zeros((2,) * ndim).sum(dim)  # raises IndexError if it is not valid
    if type(dim) is tuple:
        assert dim
        assert len({d % max(ndim, 1) for d in dim}) == len(dim)


def test_every_kind_of_axis_is_drawn():
    found = set(drawn(axes(3), 2000))
    assert {None, 0, 1, 2, -1, -2, -3, (0,), (1, 0), (-1, 0), (2, 0, 1)} <= found
    assert set(drawn(axes(3, ["negative"]), 20)) == {-1, -2, -3}
    assert set(drawn(axes(0, ["int", "negative"]), 20)) == {0, -1}


SHAPE_AND_INDEX = shapes(max_dims=4).flatmap(lambda shape: st.tuples(st.just(shape), indices(shape)))


def as_numpy(index):
    items = index if type(index) is tuple else (index,)
    plain = tuple(item.numpy() if isinstance(item, tl.Tensor) else item for item in items)
    return plain if type(index) is tuple else plain[0]


@settings(max_examples=500)
@given(SHAPE_AND_INDEX)
def test_indices_are_valid_and_select_the_same_as_in_numpy(case):
    shape, index = case
    array = np.arange(float(math.prod(shape))).reshape(shape)
    found, expected = tl.from_numpy(array)[index].numpy(), array[as_numpy(index)]
    # The dimensions of index arrays may be in other positions, as in PyTorch; the entries are the same.
    assert sorted(found.ravel()) == sorted(expected.ravel())


def each(index):
    return index if type(index) is tuple else (index,)


def is_array(item):
    return isinstance(item, np.ndarray | tl.Tensor | list) and not is_mask(item)


def is_mask(item):
    return isinstance(item, np.ndarray) and item.dtype == bool


def has_duplicates(item):
    values = np.asarray(item.numpy() if isinstance(item, tl.Tensor) else item).ravel() % 2
    return len(values) > len(set(values))


INDICES = {
    "negative int": lambda i: any(type(item) is int and item < 0 for item in i),
    "step": lambda i: any(type(item) is slice and (item.step or 1) > 1 for item in i),
    "negative step": lambda i: any(type(item) is slice and (item.step or 1) < 0 for item in i),
    "past the end": lambda i: any(type(item) is slice and (item.stop or 0) > 2 for item in i),
    "None": lambda i: any(item is None for item in i),
    "... first": lambda i: len(i) > 1 and i[0] is ...,
    "list": lambda i: any(type(item) is list for item in i),
    "Tensor": lambda i: any(isinstance(item, tl.Tensor) for item in i),
    "int32": lambda i: any(is_array(item) and np.asarray(as_numpy(item)).dtype == np.int32 for item in i),
    "duplicates": lambda i: any(is_array(item) and has_duplicates(item) for item in i),
    "2-d array": lambda i: any(is_array(item) and np.ndim(as_numpy(item)) == 2 for item in i),
    "two arrays": lambda i: sum(map(is_array, i)) == 2,
    "mask": lambda i: any(is_mask(item) and item.ndim == 1 for item in i),
    "2-d mask": lambda i: any(is_mask(item) and item.ndim == 2 for item in i),
    "two masks": lambda i: sum(map(is_mask, i)) == 2,
    "mask and array": lambda i: any(map(is_mask, i)) and any(map(is_array, i)),
    "None, array and slice": lambda i: i and i[0] is None and any(map(is_array, i)) and {slice} <= set(map(type, i)),
    "one item": lambda i: len(i) == 1,
    "nothing": lambda i: len(i) == 0,
}


@pytest.mark.parametrize("kind", INDICES)
def test_every_kind_of_index_is_drawn(kind):
    exists(indices((2, 2, 2)), lambda index: INDICES[kind](each(index)))


def test_indices_of_chosen_kinds():
    for index in drawn(indices((2, 0, 3), ["int", "slice"]), 300):
        assert {type(item) for item in each(index)} <= {int, slice}
    for index in drawn(indices((2, 3), ["mask"]), 300):
        assert all(is_mask(item) or item == slice(None) for item in each(index))


# ---- shrinking ------------------------------------------------------------------------------


def test_examples_shrink_to_simple_values():
    assert exists(tensors(), lambda x: x.numel() >= 2).tolist() == [0.0, 0.0]
    assert exists(tensors(), lambda x: bool((x != 0).any())).tolist() == 1.0
    assert exists(tensors((4,)), lambda x: float(x.sum()) > 1.5).tolist() == [0.0, 0.0, 0.0, 2.0]
    assert exists(tensors((2,)), lambda x: bool((x != x.floor()).any())).tolist() == [0.0, 0.5]
    assert exists(tensors((2, 3)), lambda x: True).numpy().flags.c_contiguous
    assert exists(tensors((3,), elements=tie_free()), lambda x: True).tolist() == [0.0, 1.0, 2.0]
    assert exists(shapes(), lambda shape: len(shape) == 2) == (1, 1)
    assert exists(matching("(m,k),(k,n)"), lambda found: True) == ((1, 1), (1, 1))
    assert exists(matching("(m,k),(k,n)"), lambda found: found[1][0] > 1) == ((1, 2), (2, 1))
    assert exists(broadcastable(2), lambda found: len(found[0]) == 2) == ((1, 1), (1, 1))
    assert exists(axes(3), lambda dim: dim is not None) == 0
    assert exists(indices((2, 3)), lambda index: True) in ((), (slice(None), slice(None)), (slice(None),))
