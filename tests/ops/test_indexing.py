"""Indexing: NumPy's values, PyTorch's where they differ, and PyTorch's gradients."""
import numpy as np
import pytest

import tensorlite as tl
from tensorlite.ops.index import index_put
from tests.support.oracle import assert_same_as_torch

RNG = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape))


ROWS, COLUMNS = np.array([[True, False, True], [False, True, True]]), np.array([True, False, True])
BLOCK = RNG.random((3, 4)) > 0.5

# Of an array of shape (2, 3, 4). The test converts NumPy arrays to tensors of either library.
BASIC = [
    0, -1, slice(None), slice(1, None), slice(None, None, 2), slice(-2, None), slice(5, 9), None, ..., (), (0,), (0, 1),
    (0, 1, 2), (..., 0), (0, ...), (None, 0), (0, None), (..., None), (slice(None), None, 1), (None, None, ..., None),
    (slice(1), slice(None), slice(1, 3)), (1, slice(None, 0)),
]  # fmt: skip
ADVANCED = [
    [0, 1], [-1, 0], ([0, 1],), ([0, 1], [1, 2]), ([0, 1], [1, 2], [3, 3]), (slice(None), [0, 2]), (..., [0, 1]),
    ([0, 1], ...), ([0, 1], slice(None), [1, 3]), (slice(None), slice(None), [3, 0]), ([0, 1], None, [0, 1]),
    (None, [0, 1]),
    ([0, 1], None), range(2), np.array([1, 0]), np.array([0, 1], np.int32), (np.array([[0], [1]]), np.array([0, 2])),
    [], np.zeros((2, 0), int), (slice(None), np.array([[0, 1]])),
    (np.array([0, 1]), slice(None), np.array([[1], [2]])),
    (slice(None), np.array([0, 1]), np.array([0, 1])),
    ROWS, (ROWS,), (slice(None), BLOCK), (slice(None), COLUMNS), (slice(None), COLUMNS, slice(0, 2)), (..., BLOCK),
    (None, ROWS), (ROWS, np.array([1])), [True, False], (slice(None), [True, False, True], [0, 1]),
    np.zeros((2, 3), bool),
    True, False, (True, [0, 1]), (False, [0]), (..., True), np.array(True), np.array(False), (True, True),
]  # fmt: skip
TORCHS_OWN = [  # an integer next to an index array: NumPy treats it as another index array
    (0, slice(None), [0, 1]), ([0, 1], slice(None), 0), ([0, 1], 0), (0, [0, 1]), (0, [0, 1], slice(1, 3)),
    (np.array(0), slice(None), [0, 1]), (slice(None), np.array(1)), np.array(1),
    (slice(None), np.array([[2], [0]]), 0),
    (ROWS, 0), (0, COLUMNS), (0, BLOCK), (None, True, 0), (slice(None), np.array(True), 0), (0, COLUMNS, None),
]  # fmt: skip
REPEATED = [[1, 1, 0], np.array([[0, 1], [1, 1]]), ([0, 1, 0], [2, 2, 2]), (slice(None), [0, 2, 2]), (..., [-1, 3])]


def of(lib, index):
    """Return the index with tensors of ``lib`` instead of NumPy arrays."""
    if isinstance(index, np.ndarray):
        return lib.tensor(index)
    return tuple(of(lib, i) for i in index) if isinstance(index, tuple) else index


def written(lib, x, index, value):
    y = x.clone()
    y[of(lib, index)] = value
    return y


# ---- x[index] -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", BASIC + ADVANCED + REPEATED, ids=repr)
def test_getitem_equals_numpy(index):
    x = real(2, 3, 4)
    expected = x[index]
    for i in (index, of(tl, index)):
        result = tl.tensor(x)[i]
        assert result.shape == expected.shape
        assert result.tolist() == expected.tolist()


@pytest.mark.parametrize("index", BASIC + ADVANCED + TORCHS_OWN + REPEATED, ids=repr)
def test_getitem_differentiates_as_in_torch(index):
    assert_same_as_torch(lambda lib, x: x[of(lib, index)], real(2, 3, 4))
    assert_same_as_torch(lambda lib, x: x.permute(2, 1, 0)[of(lib, index)], real(4, 3, 2))


@pytest.mark.parametrize("index", [None, ..., (), True, False, np.array(False)], ids=repr)
def test_getitem_of_a_number(index):
    assert_same_as_torch(lambda lib, x: x[of(lib, index)], real())


def test_an_integer_does_not_move_the_dimensions_of_an_index_array():
    x = real(2, 3, 4)
    assert tl.tensor(x)[0, :, [1, 3]].tolist() == x[0][:, [1, 3]].tolist()
    assert x[0, :, [1, 3]].shape == (2, 3), "in NumPy it does"


def test_steps_may_be_negative():
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[::-2]
    y.backward(tl.tensor([10.0, 20.0]))
    assert y.tolist() == [3.0, 1.0]
    assert x.grad.tolist() == [20.0, 0.0, 10.0]


def test_a_nested_list_is_one_index_array():
    assert tl.tensor([5, 6, 7])[[[0, 1], [2, 2]]].tolist() == [[5, 6], [7, 7]]


def test_bounds_of_slices_may_be_tensors_and_indices_numpy_integers():
    x = tl.arange(5)
    assert x[tl.tensor(1) : tl.tensor(3)].tolist() == [1, 2]
    assert x[np.int64(-1)].tolist() == 4


@pytest.mark.parametrize("index", [0, (0, 1), (0, 1, 2), slice(1, None), (..., None), ()], ids=repr)
def test_a_basic_index_is_a_view(index):
    x = tl.zeros(2, 3, 4)
    x[index].fill_(1.0)
    assert x.sum().item() == np.ones((2, 3, 4))[index].size


@pytest.mark.parametrize("index", [[0], ROWS, (slice(None), [0, 1]), True], ids=repr)
def test_an_index_array_copies(index):
    x = tl.zeros(2, 3, 4)
    y = x[of(tl, index)]
    y.fill_(1.0)
    assert y.is_contiguous()
    assert x.sum().item() == 0.0


def test_changing_an_index_array_later_raises():
    x, index = tl.tensor([1.0, 2.0, 3.0], requires_grad=True), tl.tensor([0, 1])
    y = x[index].sum()
    index.add_(1)
    with pytest.raises(tl.VersionError, match="index: the backward pass needs"):
        y.backward()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (2, r"getitem: index 2 is out of range for dim 0 of size 2"),
        ((..., 4), r"getitem: index 4 is out of range for dim 2 of size 4"),
        ((None, 0, ..., None, -5), r"getitem: index -5 is out of range for dim 2 of size 4"),
        ((..., 0, ...), r"getitem: an index may have one \.\.\., got 2"),
        ((0, -4), r"getitem: index -4 is out of range for dim 1 of size 3"),
        ([0, 5], r"getitem: index 5 at position \(1,\) is out of range for a dimension of size 2 of float32"),
        (np.array([-3]), r"getitem: index -3 at position \(0,\) is out of range for a dimension of size 2"),
        ((0, 0, 0, 0), r"too many indices"),
        (([0], 0, 0, 0), r"getitem: too many indices: 4 for a tensor of shape \(2, 3, 4\)"),
        (1.0, r"getitem: 1.0 is not an integer, slice"),
        ("a", r"getitem: 'a' is not an integer"),
        (np.array([1.0]), r"getitem: expected an index of integers, or a mask of booleans, got float64\(1,?\)"),
        (np.array([1, 0], np.uint8), r"got uint8\(2,?\)"),
        ([True, False, True], r"getitem: a mask of shape \(3,\) does not fit dimensions of sizes \(2,\)"),
        ((0, ROWS), r"a mask of shape \(2, 3\) does not fit dimensions of sizes \(3, 4\)"),
        (([0, 1], slice(None), [0, 9]), r"getitem: index 9 at position \(1,\) .* a dimension of size 4"),
        (([0, 1], [0, 1, 2]), r"getitem: index arrays of shapes \(2,\), \(3,\) do not broadcast together"),
        ([[0, 1], [1]], r"getitem: the nested lists of an index have different lengths"),
        ([slice(1), 0], r"getitem: expected an index"),
    ],
)  # fmt: skip
def test_an_invalid_index_raises_index_error(index, words):
    x = tl.zeros(2, 3, 4)
    with pytest.raises(IndexError, match=words):
        x[of(tl, index)]
    with pytest.raises(IndexError, match=words.replace("getitem", "setitem")):
        x[of(tl, index)] = 1.0


def test_a_list_of_tensors_as_index_raises():
    with pytest.raises(IndexError, match=r"getitem: a list of tensors .*\. stack\(\) them, or pass a tuple"):
        tl.zeros(2, 2)[[tl.tensor(0), tl.tensor(1)]]


# ---- x[index] = value ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", BASIC + ADVANCED + TORCHS_OWN, ids=repr)
def test_setitem_differentiates_as_in_torch(index):
    x = real(2, 3, 4)
    picked = tl.tensor(x)[of(tl, index)].shape
    assert_same_as_torch(lambda lib, x: written(lib, x, index, 2.5) * x, x)
    for shape in {picked, (), (1,) * len(picked), (1, 1, *picked)}:
        assert_same_as_torch(lambda lib, x, v: written(lib, x, index, v) * x, x, real(*shape))


@pytest.mark.parametrize("index", BASIC + ADVANCED + TORCHS_OWN, ids=repr)
def test_index_put_does_not_change_its_input(index):
    x, value = tl.zeros(2, 3, 4), 3.0
    y = index_put(x, of(tl, index), value)
    z = x.clone()
    z[of(tl, index)] = value
    assert y.tolist() == z.tolist()
    assert x.sum().item() == 0.0
    assert y.sum().item() == 3.0 * y[of(tl, index)].numel()


def test_index_put_accumulates_repeated_indices():
    places = (np.array([0, 0, 1]), np.array([1, 1, 2]))

    def added(lib, x, v):
        i = of(lib, places)
        return index_put(x, i, v, accumulate=True) if lib is tl else x.index_put(i, v, accumulate=True)

    assert_same_as_torch(added, real(2, 3), real(3))
    y = index_put(tl.zeros(2, 3), of(tl, places), tl.tensor([1.0, 2.0, 4.0]), True)
    assert y.tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 4.0]]


def test_a_value_is_converted_to_the_dtype_of_the_tensor():
    x, v = tl.zeros(3), tl.tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = index_put(x, slice(1, None), v)
    y.sum().backward()
    assert y.dtype == tl.float32
    assert v.grad.dtype == tl.float64
    assert v.grad.tolist() == [1.0, 1.0]
    assert index_put(x, 0, tl.tensor(7)).tolist() == [7.0, 0.0, 0.0]
    with pytest.raises(tl.DTypeError, match=r"index_put: float32 values do not fit into a tensor of int64"):
        index_put(tl.tensor([1, 2]), 0, tl.tensor(1.5))


@pytest.mark.parametrize("index", [0, [0], (0, [1, 2]), ROWS], ids=repr)
def test_a_value_that_does_not_broadcast_raises_shape_error(index):
    x = tl.zeros(2, 3, 4)
    with pytest.raises(tl.ShapeError, match=r"setitem: cannot write into a tensor of shape \(2, 3, 4\)"):
        x[of(tl, index)] = tl.zeros(5)
    with pytest.raises(tl.ShapeError, match=r"index_put\(float32\(2, 3, 4\), float32\(5"):
        index_put(x, of(tl, index), tl.zeros(5))


@pytest.mark.parametrize(
    ("shape", "sizes"), [((3,), (1,)), ((1,), (3,)), ((), (3,)), ((2, 1), (1, 3)), ((1, 2), (3, 1))]
)
def test_repeat_returns_new_memory(shape, sizes):
    x = tl.zeros(shape)
    y = x.repeat(sizes)
    y.reshape(-1)[0] = 5.0
    assert y.sum().item() == 5.0
    assert x.sum().item() == 0.0
