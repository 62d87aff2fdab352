"""The exercises of chapter 5: attention by hand."""

from __future__ import annotations

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray


def windowed_softmax(scores: Array, window: int) -> Array:
    """Return the attention weights for scores of the shape (n, n), where each position reads from the last few only.

    Position t reads from itself and from the window - 1 positions before it, and from no other. Near the start there
    are fewer positions, and it reads from those. Each row of the result adds up to 1. Scores may be as large as 1000.

    >>> windowed_softmax(np.zeros((4, 4)), 2)
    array([[1. , 0. , 0. , 0. ],
           [0.5, 0.5, 0. , 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    reader, read = np.indices(scores.shape)
    seen = (read <= reader) & (read > reader - window)
    return _softmax(np.where(seen, scores, -np.inf))


def attention_gradients(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of q, k and v for attention without a mask.

    The result of the attention is weights @ v, where the weights are the softmax of each row of q @ k.T / sqrt(d). All
    arrays have the shape (n, d); g is the gradient of the result. Go backwards: first to v and to the weights, then to
    the scores, then to q and k.

    >>> g, zeros = np.array([[4.0], [0.0]]), np.zeros((2, 1))
    >>> dq, dk, dv = attention_gradients(g, zeros, zeros, zeros)
    >>> dv
    array([[2.],
           [2.]])
    """
    scale = q.shape[-1] ** -0.5
    weights = _softmax(q @ k.T * scale)
    g_weights = g @ v.T
    g_scores = weights * (g_weights - (g_weights * weights).sum(axis=-1, keepdims=True)) * scale
    return g_scores @ k, g_scores.T @ q, weights.T @ g


def causal_attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Return the result of causal attention with several heads, of the shape (n, width).

    q, k and v have the shape (n, width), and each head has width / heads numbers of each row: head 0 the first ones,
    head 1 the next ones. The scores of a head are divided by the square root of its width. A position reads from itself
    and from those before it. The results of the heads stand side by side, in the order of the heads.

    >>> values = np.array([[4.0, 0.0], [0.0, 2.0]])
    >>> causal_attention(np.zeros((2, 2)), np.zeros((2, 2)), values, 2)
    array([[4., 0.],
           [2., 1.]])
    """
    n, width = q.shape
    q, k, v = (a.reshape(n, heads, -1).swapaxes(0, 1) for a in (q, k, v))
    return _join(_causal(q @ k.swapaxes(1, 2) / (width / heads) ** 0.5) @ v)


# ---- parts of the solutions and of the mistakes ---------------------------------------------------------------------


def _softmax(scores: Array, axis: int = -1) -> Array:
    e = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _causal(scores: Array) -> Array:
    """Return the softmax of scores (..., n, n), where position t reads from positions 0 to t."""
    return _softmax(np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf))


def _join(heads: Array) -> Array:
    """Return heads (heads, n, d) side by side: (n, heads * d)."""
    return heads.swapaxes(0, 1).reshape(heads.shape[1], -1)


# ---- calls ----------------------------------------------------------------------------------------------------------


def _numbers(*shape: int, step: int = 7) -> Array:
    """Return an array of halves that differ, some of them negative."""
    size = int(np.prod(shape))
    return (np.arange(size) * step % 11 - 4.0).reshape(shape) / 2


def _inputs(*shape: int) -> tuple[Array, Array, Array]:
    return _numbers(*shape, step=3), _numbers(*shape), _numbers(*shape, step=5)


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _seen(scores: Array, window: int) -> Array:
    reader, read = np.indices(scores.shape)
    return np.asarray((read <= reader) & (read > reader - window))


def _no_window(scores: Array, window: int) -> Array:
    return _causal(scores)


def _one_too_many(scores: Array, window: int) -> Array:
    return windowed_softmax(scores, window + 1)


def _one_too_few(scores: Array, window: int) -> Array:
    return windowed_softmax(scores, max(window - 1, 1))


def _negative_start(scores: Array, window: int) -> Array:
    weights = np.zeros(scores.shape)
    for t in range(len(scores)):
        seen = slice(t - window + 1, t + 1)
        weights[t, seen] = _softmax(scores[t, seen])
    return weights


def _both_sides(scores: Array, window: int) -> Array:
    reader, read = np.indices(scores.shape)
    return _softmax(np.where(abs(read - reader) < window, scores, -np.inf))


def _score_zero(scores: Array, window: int) -> Array:
    return _softmax(np.where(_seen(scores, window), scores, 0.0))


def _weight_zero(scores: Array, window: int) -> Array:
    return np.where(_seen(scores, window), _softmax(scores), 0.0)


def _columns(scores: Array, window: int) -> Array:
    return _softmax(np.where(_seen(scores, window), scores, -np.inf), axis=0)


def _overflow(scores: Array, window: int) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(np.where(_seen(scores, window), scores, -np.inf))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _back(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, float]:
    """Return the weights, their gradient, and the factor of the scores."""
    scale = q.shape[-1] ** -0.5
    return _softmax(q @ k.T * scale), g @ v.T, scale


def _without_division(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, _ = _back(g, q, k, v)
    gs = w * (gw - (gw * w).sum(axis=-1, keepdims=True))
    return gs @ k, gs.T @ q, w.T @ g


def _multiplied(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    dq, dk, dv = attention_gradients(g, q, k, v)
    return dq * q.shape[-1], dk * q.shape[-1], dv


def _own_score_only(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, scale = _back(g, q, k, v)
    gs = w * (1 - w) * gw * scale
    return gs @ k, gs.T @ q, w.T @ g


def _constant_sum(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, scale = _back(g, q, k, v)
    gs = w * gw * scale
    return gs @ k, gs.T @ q, w.T @ g


def _without_softmax(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, scale = _back(g, q, k, v)
    return gw @ k * scale, gw.T @ q * scale, w.T @ g


def _mean_as_row(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, scale = _back(g, q, k, v)
    gs = w * (gw - (gw * w).sum(axis=-1)) * scale
    return gs @ k, gs.T @ q, w.T @ g


def _keys_as_queries(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    w, gw, scale = _back(g, q, k, v)
    gs = w * (gw - (gw * w).sum(axis=-1, keepdims=True)) * scale
    return gs @ k, gs @ q, w.T @ g


def _values_not_transposed(g: Array, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    dq, dk, _ = attention_gradients(g, q, k, v)
    return dq, dk, _back(g, q, k, v)[0] @ g


def _split(a: Array, heads: int) -> Array:
    return a.reshape(len(a), heads, -1).swapaxes(0, 1)


def _scores(q: Array, k: Array, heads: int) -> Array:
    q, k = _split(q, heads), _split(k, heads)
    return q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5


def _not_divided(q: Array, k: Array, v: Array, heads: int) -> Array:
    return _join(_causal(_scores(q, k, heads) * (q.shape[-1] / heads) ** 0.5) @ _split(v, heads))


def _whole_width(q: Array, k: Array, v: Array, heads: int) -> Array:
    return _join(_causal(_scores(q, k, heads) / heads**0.5) @ _split(v, heads))


def _not_causal(q: Array, k: Array, v: Array, heads: int) -> Array:
    return _join(_softmax(_scores(q, k, heads)) @ _split(v, heads))


def _one_head(q: Array, k: Array, v: Array, heads: int) -> Array:
    return causal_attention(q, k, v, 1)


def _only_reshaped(q: Array, k: Array, v: Array, heads: int) -> Array:
    n, width = q.shape
    q, k, v = (a.reshape(heads, n, -1) for a in (q, k, v))
    return (_causal(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5) @ v).reshape(n, width)


def _not_swapped_back(q: Array, k: Array, v: Array, heads: int) -> Array:
    return (_causal(_scores(q, k, heads)) @ _split(v, heads)).reshape(q.shape)


def _every_second(q: Array, k: Array, v: Array, heads: int) -> Array:
    results = [causal_attention(q[:, i::heads], k[:, i::heads], v[:, i::heads], 1) for i in range(heads)]
    return np.concatenate(results, axis=1)


def _keys_read(q: Array, k: Array, v: Array, heads: int) -> Array:
    return causal_attention(k, q, v, heads)


CHAPTER = Chapter(
    5,
    "attention by hand",
    "docs/learn/5-attention-by-hand.md",
    (
        Exercise(
            windowed_softmax,
            (
                (np.zeros((4, 4)), 2), (_numbers(3, 3), 2), (_numbers(5, 5), 3), (_numbers(4, 4), 1),
                (_numbers(3, 3), 9), (500 * _numbers(3, 3), 2),
            ),
            "Replace a score by -np.inf if its position is later, or too far back. Take the softmax of each row, and "
            "subtract its largest score before exp.",
            (
                Mistake(_no_window, "This reads from all earlier positions. It must read from the last `window` only."),
                Mistake(_one_too_many, "The position itself is one of the `window` positions."),
                Mistake(_one_too_few, "The window is one position too short: it has the position itself and "
                                      "window - 1 before it."),
                Mistake(_negative_start, "Near the start, t - window + 1 is negative, and Python then counts from the "
                                         "end. Begin at max(0, t - window + 1)."),
                Mistake(_both_sides, "The window looks back only. Later positions get the weight 0."),
                Mistake(_score_zero, "A score of 0 is an ordinary score, because exp(0) is 1. Use -np.inf."),
                Mistake(_weight_zero, "The rows do not add up to 1. Mask the scores before the softmax."),
                Mistake(_columns, "The columns add up to 1, but the rows should: the softmax is along the last axis."),
                Mistake(_overflow, "exp of a large score is infinite. Subtract the largest score of each row first."),
            ),
        ),
        Exercise(
            attention_gradients,
            (
                (np.array([[4.0], [0.0]]), np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1))),
                (_numbers(2, 2, step=2), *_inputs(2, 2)), (_numbers(4, 3, step=2), *_inputs(4, 3)),
                (_numbers(1, 3, step=2), *_inputs(1, 3)),
            ),
            "The gradient of the weights is g @ v.T. Each score gets its weight times how far that is above the mean, "
            "divided by sqrt(d). q, k and v each stand in one product: use the rule of chapter 2 for it.",
            (
                Mistake(_without_division, "The scores were divided by sqrt(d), so their gradients are, too."),
                Mistake(_multiplied, "The scores were divided by sqrt(d). Divide their gradients, too."),
                Mistake(_own_score_only, "w * (1 - w) is the slope with respect to the own score. A score moves all "
                                         "weights of its row."),
                Mistake(_constant_sum, "A score also moves the sum in the denominator. Subtract the weighted mean of "
                                       "the gradients of the weights."),
                Mistake(_without_softmax, "The gradient of the weights is not that of the scores: the softmax is "
                                          "between them."),
                Mistake(_mean_as_row, "Each row has a mean of its own. The means need keepdims=True to be a column."),
                Mistake(_keys_as_queries, "scores[i, j] uses key j. So the gradient of the keys is a sum over i: "
                                          "transpose the gradient of the scores."),
                Mistake(_values_not_transposed, "Value j is read by every position i, with weights[i, j]. Transpose "
                                                "the weights."),
            ),
            parts=("the gradient of q", "the gradient of k", "the gradient of v"),
        ),
        Exercise(
            causal_attention,
            (
                (*_inputs(2, 2), 2), (*_inputs(3, 4), 2), (*_inputs(3, 2), 1), (*_inputs(4, 6), 3), (*_inputs(4, 6), 2),
                (*_inputs(1, 4), 4),
            ),
            "Reshape to (n, heads, width / heads), and swap the first two dimensions. At the end, swap back and join.",
            (
                Mistake(_not_divided, "Divide the scores by the square root of the width of a head."),
                Mistake(_whole_width, "Divide by the square root of the width of a head, width / heads."),
                Mistake(_not_causal, "A position reads from later ones. Their scores must be -np.inf."),
                Mistake(_one_head, "Each head has weights of its own. This computes one set of weights for all."),
                Mistake(_only_reshaped, "reshape alone mixes the positions. Reshape to (n, heads, ...), then swap."),
                Mistake(_not_swapped_back, "The heads come first. Swap back to (n, heads, ...) before you join them."),
                Mistake(_every_second, "Head 0 has the first width / heads numbers, next to each other."),
                Mistake(_keys_read, "The rows of the scores are the queries, and the columns are the keys."),
            ),
        ),
    ),
)  # fmt: skip
