"""The exercises of chapter 2: tensors and broadcasting."""

from __future__ import annotations

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray
Shape = tuple[int, ...]


def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """Return the shape of x + y, where x has the shape a and y has the shape b.

    Compare the sizes from the last dimension to the first. A missing dimension counts as 1. Two sizes fit if they are
    equal, or if one of them is 1; then the result has the other one. Raise ValueError if two sizes do not fit. Do not
    let NumPy do the work.

    >>> broadcast_shape((2, 3), (3,))
    (2, 3)
    >>> broadcast_shape((2, 1), (4, 1, 5))
    (4, 2, 5)
    """
    dims = max(len(a), len(b))
    sizes = []
    for m, n in zip((1,) * (dims - len(a)) + a, (1,) * (dims - len(b)) + b):
        if m != n and 1 not in (m, n):
            raise ValueError(f"the sizes {m} and {n} do not fit")
        sizes.append(n if m == 1 else m)
    return tuple(sizes)


def sum_to(g: Array, shape: Shape) -> Array:
    """Return the gradient of an input of the given shape, which was repeated to the shape of the array g.

    Sum over each dimension that the input did not have, and over each one where its size is 1 and that of g is not.
    The result has exactly the given shape.

    >>> sum_to(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), (3,))
    array([5., 7., 9.])
    >>> sum_to(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), (2, 1))
    array([[ 6.],
           [15.]])
    """
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] != 1)
    return np.asarray(g.sum(axis=repeated, keepdims=True))


def linear_gradients(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of x, weight and bias for y = x @ weight.T + bias, where g is the gradient of y.

    x has the shape (n, inputs), weight (outputs, inputs), bias (outputs,), g (n, outputs). That is the layout of
    tl.nn.Linear. Each gradient has the shape of its array.

    >>> dx, dweight, dbias = linear_gradients(np.ones((4, 2)), np.ones((4, 3)), np.ones((2, 3)))
    >>> dx.shape, dweight.shape, dbias.shape
    ((4, 3), (2, 3), (2,))
    """
    return g @ weight, g.T @ x, g.sum(axis=0)


# ---- calls ----------------------------------------------------------------------------------------------------------


def _numbers(*shape: int) -> Array:
    """Return an array of whole numbers that differ, some of them negative."""
    size = int(np.prod(shape))
    return (np.arange(size) * 7 % 11 - 4.0).reshape(shape)


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _from_the_left(a: Shape, b: Shape) -> Shape:
    dims = max(len(a), len(b))
    pairs = zip(a + (1,) * (dims - len(a)), b + (1,) * (dims - len(b)))
    return tuple(n if m == 1 else m for m, n in pairs)


def _largest(a: Shape, b: Shape) -> Shape:
    dims = max(len(a), len(b))
    pairs = zip((1,) * (dims - len(a)) + a, (1,) * (dims - len(b)) + b)
    return tuple(max(m, n) for m, n in pairs)


def _longer(a: Shape, b: Shape) -> Shape:
    return a if len(a) >= len(b) else b


def _first_row(g: Array, shape: Shape) -> Array:
    g = g[(0,) * (g.ndim - len(shape))]
    return g[tuple(slice(0, 1) if size == 1 else slice(None) for size in shape)]


def _without_keepdims(g: Array, shape: Shape) -> Array:
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return np.asarray(g.sum(axis=tuple(i for i, size in enumerate(shape) if size == 1)))


def _leading_only(g: Array, shape: Shape) -> Array:
    return np.asarray(g.sum(axis=tuple(range(g.ndim - len(shape)))))


def _means(g: Array, shape: Shape) -> Array:
    return sum_to(g, shape) * (np.prod(shape) / g.size)


def _transposed_weight(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    return g @ weight, x.T @ g, g.sum(axis=0)


def _bias_not_summed(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    return g @ weight, g.T @ x, g


def _bias_mean(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    return g @ weight, g.T @ x, g.mean(axis=0)


def _bias_kept(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    return g @ weight, g.T @ x, g.sum(axis=0, keepdims=True)


CHAPTER = Chapter(
    2,
    "tensors and broadcasting",
    "docs/learn/2-tensors-and-broadcasting.md",
    (
        Exercise(
            broadcast_shape,
            (
                ((2, 3), (3,)), ((3, 1), (3,)), ((2, 1), (4, 1, 5)), ((), (2, 3)), ((2, 3), (2, 3)), ((1,), (0,)),
                ((2, 3), (2,)), ((4, 2), (4, 3)),
            ),
            "Put ones in front of the shorter shape. Then compare the sizes in pairs.",
            (
                Mistake(_from_the_left, "Compare from the right: the ones go in front of the shorter shape. "
                                        "Sizes that do not fit are a ValueError."),
                Mistake(_largest, "Not the larger size, but the one that is not 1: 1 and 0 give 0. "
                                  "Other sizes that differ are a ValueError."),
                Mistake(_longer, "Compare each pair of sizes, also in shapes of the same length."),
            ),
        ),
        Exercise(
            sum_to,
            (
                (_numbers(2, 3), (3,)), (_numbers(2, 3), (2, 1)), (_numbers(2, 2, 3), (1, 3)), (_numbers(2, 3), (2, 3)),
                (_numbers(2, 3), ()), (_numbers(4, 1, 2), (1, 2)), (_numbers(2, 3), (1, 1)),
            ),
            "First sum over the dimensions in front. Then sum over those of size 1, with keepdims=True.",
            (
                Mistake(_first_row, "This is one row of g. A number that is repeated gets the sum of all its copies."),
                Mistake(_means, "This is a mean. The gradient is the sum: each copy moves the result once."),
                Mistake(_leading_only, "A dimension of size 1 that is not in front was repeated, too: sum over it."),
                Mistake(_without_keepdims, "The sum removes the dimensions of size 1. keepdims=True keeps them."),
            ),
        ),
        Exercise(
            linear_gradients,
            (
                (_numbers(2, 2), _numbers(2, 3), _numbers(2, 3)), (_numbers(4, 2), _numbers(4, 3), _numbers(2, 3)),
                (_numbers(1, 3), _numbers(1, 5), _numbers(3, 5)),
            ),
            "Write down the shapes. Only one product of g with weight has the shape of x, and only one of g with x has "
            "that of weight.",
            (
                Mistake(_transposed_weight, "The gradient of weight is transposed: its shape is (inputs, outputs)."),
                Mistake(_bias_not_summed, "The bias is added to each of the n rows: its gradient is a sum of n rows."),
                Mistake(_bias_mean, "The gradient of the bias is the sum over the rows of g, not their mean."),
                Mistake(_bias_kept, "The bias has one dimension, so its gradient has one, too: no keepdims here."),
            ),
            parts=("the gradient of x", "the gradient of weight", "the gradient of bias"),
        ),
    ),
)  # fmt: skip
