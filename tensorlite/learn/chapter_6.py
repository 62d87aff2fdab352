"""The exercises of chapter 6: a GPT in one page."""

from __future__ import annotations

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray


def count_llama(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    """Return the number of parameters of a model of the Llama family.

    It has no biases, and no embedding of positions, because it turns queries and keys. A norm has one factor for each
    number of the width. The sizes are like those of the chapter, with three differences. There are fewer keys and
    values: kv_heads heads instead of heads, each of them width / heads wide. The MLP has three matrices between width
    and inner: two that go in, and one that goes back. The head is tied to the embedding.

    >>> count_llama(vocab=49152, width=576, layers=30, heads=9, kv_heads=3, inner=1536)  # SmolLM2-135M
    134515008
    """
    head = width // heads
    attention = 2 * width * width + 2 * width * kv_heads * head
    return vocab * width + layers * (attention + 3 * width * inner + 2 * width) + width


def nucleus(logits: Array, temperature: float, top_p: float) -> Array:
    """Return probabilities, (n,), for logits of the shape (n,), of the most probable tokens only.

    First divide the logits by the temperature and take the softmax. Then keep the most probable tokens: the fewest
    whose sum is at least top_p. All others get the probability 0. Those that are kept are divided by their sum. Logits
    may be as large as 1000.

    >>> nucleus(np.log([0.5, 0.125, 0.25, 0.125]), 1.0, 0.7).round(3)
    array([0.667, 0.   , 0.333, 0.   ])
    """
    p = _softmax(logits / temperature)
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    kept = np.zeros(len(p), dtype=bool)
    kept[order[before < top_p]] = True
    return np.asarray(np.where(kept, p, 0.0) / p[kept].sum())


def next_position(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    """Return the result of attention for one new position, and the keys and values to keep for the next one.

    q, k and v are those of the new position, of the shape (heads, d). kept_k and kept_v are those of the n positions
    before it, of the shape (heads, n, d); n may be 0. The new position reads from itself, too. Return the result,
    (heads, d), all keys and all values, (heads, n + 1, d) each, in the order of the positions.

    >>> one, none = np.array([[1.0, 0.0]]), np.zeros((1, 0, 2))
    >>> result, keys, values = next_position(one, one, one, none, none)
    >>> result, keys.shape
    (array([[1., 0.]]), (1, 1, 2))
    """
    keys, values = _append(kept_k, k), _append(kept_v, v)
    return _read(q, keys, values), keys, values


# ---- parts of the solutions and of the mistakes ---------------------------------------------------------------------


def _softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _append(kept: Array, new: Array) -> Array:
    """Return (heads, n, d) with (heads, d) as its last position."""
    return np.concatenate([kept, new[:, None]], axis=1)


def _read(q: Array, keys: Array, values: Array, scale: float | None = None) -> Array:
    """Return the attention, (heads, d), of queries (heads, d) to keys and values (heads, n, d)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    weights = _softmax((keys @ q[:, :, None])[:, :, 0] * scale)
    return np.asarray((weights[:, None] @ values)[:, 0])


# ---- calls ----------------------------------------------------------------------------------------------------------


def _numbers(*shape: int, step: int = 7) -> Array:
    """Return an array of halves that differ, some of them negative."""
    size = int(np.prod(shape))
    return (np.arange(size) * step % 11 - 4.0).reshape(shape) / 2


def _position(heads: int, n: int, d: int) -> tuple[Array, Array, Array, Array, Array]:
    q, k, v = (_numbers(heads, d, step=step) for step in (3, 7, 5))
    return q, k, v, _numbers(heads, n, d, step=6), _numbers(heads, n, d, step=4)


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _as_many_keys(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, heads, inner)


def _no_output_matrix(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) - layers * width * width


def _two_matrices(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) - layers * width * inner


def _no_last_norm(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) - width


def _one_norm(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) - layers * width


def _norms_with_bias(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) + (2 * layers + 1) * width


def _own_head(vocab: int, width: int, layers: int, heads: int, kv_heads: int, inner: int) -> int:
    return count_llama(vocab, width, layers, heads, kv_heads, inner) + vocab * width


def _multiplied(logits: Array, temperature: float, top_p: float) -> Array:
    return nucleus(logits, 1 / temperature, top_p)


def _no_temperature(logits: Array, temperature: float, top_p: float) -> Array:
    return nucleus(logits, 1.0, top_p)


def _too_few(logits: Array, temperature: float, top_p: float) -> Array:
    p = _softmax(logits / temperature)
    order = np.argsort(-p, kind="stable")
    kept = order[np.cumsum(p[order]) < top_p]
    result = np.zeros(len(p))
    result[kept] = p[kept] / max(p[kept].sum(), 1e-300)
    return result


def _not_divided(logits: Array, temperature: float, top_p: float) -> Array:
    p = _softmax(logits / temperature)
    return np.asarray(np.where(nucleus(logits, temperature, top_p) > 0, p, 0.0))


def _in_order(logits: Array, temperature: float, top_p: float) -> Array:
    p = _softmax(logits / temperature)
    kept = np.where(np.cumsum(p) - p < top_p, p, 0.0)
    return np.asarray(kept / kept.sum())


def _sorted(logits: Array, temperature: float, top_p: float) -> Array:
    return np.sort(nucleus(logits, temperature, top_p))[::-1]


def _overflow(logits: Array, temperature: float, top_p: float) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(logits / temperature)
        p = e / e.sum()
    return nucleus(np.log(p), 1.0, top_p) if np.isfinite(p).all() else np.full(len(p), np.nan)


def _only_kept(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    result = _read(q, kept_k, kept_v) if kept_k.shape[1] else np.zeros_like(q)
    return result, _append(kept_k, k), _append(kept_v, v)


def _at_the_front(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    keys, values = _append(kept_k, k), _append(kept_v, v)
    return _read(q, keys, values), np.roll(keys, 1, axis=1), np.roll(values, 1, axis=1)


def _never_kept(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    return _read(q, _append(kept_k, k), _append(kept_v, v)), kept_k, kept_v


def _without_scale(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    keys, values = _append(kept_k, k), _append(kept_v, v)
    return _read(q, keys, values, 1.0), keys, values


def _key_asks(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    keys, values = _append(kept_k, k), _append(kept_v, v)
    return _read(k, keys, values), keys, values


def _no_softmax(q: Array, k: Array, v: Array, kept_k: Array, kept_v: Array) -> tuple[Array, Array, Array]:
    keys, values = _append(kept_k, k), _append(kept_v, v)
    scores = (keys @ q[:, :, None])[:, :, 0] * q.shape[-1] ** -0.5
    return (scores[:, None] @ values)[:, 0], keys, values


_TOKENS = np.log(np.array([0.125, 0.5, 0.25, 0.0625, 0.0625]))

CHAPTER = Chapter(
    6,
    "a GPT in one page",
    "docs/learn/6-a-gpt-in-one-page.md",
    (
        Exercise(
            count_llama,
            (
                (49152, 576, 30, 9, 3, 1536), (10, 4, 1, 2, 1, 8), (10, 4, 3, 2, 2, 8), (1, 1, 1, 1, 1, 1),
                (65, 128, 4, 8, 2, 352),
            ),
            "Write down the shape of each matrix: embedding; queries, keys, values, projection; three of the MLP. Then "
            "the norms: two in a block, and one at the end.",
            (
                Mistake(_as_many_keys, "Keys and values have kv_heads heads: each of their matrices has "
                                       "width * kv_heads * (width / heads) numbers."),
                Mistake(_no_output_matrix, "The projection after the heads is missing, width * width in each block."),
                Mistake(_two_matrices, "The MLP has three matrices of width * inner numbers."),
                Mistake(_no_last_norm, "The norm after the last block is missing."),
                Mistake(_one_norm, "Each block has two norms, one for the attention and one for the MLP."),
                Mistake(_norms_with_bias, "Nothing has a bias here, and norms do not either: a norm has `width` "
                                          "numbers."),
                Mistake(_own_head, "The head is tied: it is the embedding, so it is counted once."),
            ),
        ),
        Exercise(
            nucleus,
            (
                (_TOKENS, 1.0, 0.7), (_TOKENS, 2.0, 0.5), (_TOKENS, 0.5, 0.9), (_TOKENS, 1.0, 0.1),
                (_TOKENS, 1.0, 0.99), (1000 + _numbers(6), 1.0, 0.8),
            ),
            "Sort the probabilities, largest first. A token is kept if the sum of those before it is less than top_p.",
            (
                Mistake(_no_temperature, "Divide the logits by the temperature."),
                Mistake(_multiplied, "Divide the logits by the temperature, do not multiply."),
                Mistake(_too_few, "The token with which the sum reaches top_p is kept, too."),
                Mistake(_not_divided, "The probabilities must add up to 1: divide those that are kept by their sum."),
                Mistake(_in_order, "The sum begins with the most probable token, not with the first one."),
                Mistake(_overflow, "exp of a large logit is infinite. Subtract the largest logit first."),
                Mistake(_sorted, "Each probability must stay at the place of its token. The sorting has moved them."),
            ),
        ),
        Exercise(
            next_position,
            (_position(1, 2, 2), _position(2, 3, 4), _position(2, 0, 3), _position(3, 1, 2)),
            "Append k and v to those that were kept. Then q reads from all of them: scores, division, softmax, mean.",
            (
                Mistake(_only_kept, "The new position also reads from itself: append its key and value first."),
                Mistake(_at_the_front, "The new key and value come after those of the earlier positions."),
                Mistake(_never_kept, "The next position needs the key and the value of this one: return them, too."),
                Mistake(_without_scale, "Divide the scores by the square root of d."),
                Mistake(_key_asks, "The scores are the products of q with the keys, not of k."),
                Mistake(_no_softmax, "The scores are not the weights yet: take the softmax over the positions."),
            ),
            parts=("the result", "the keys", "the values"),
        ),
    ),
)  # fmt: skip
