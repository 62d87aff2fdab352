"""The exercises of chapter 4: a network that learns."""

from __future__ import annotations

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray


def cross_entropy(logits: Array, targets: Array) -> float:
    """Return the cross-entropy of a batch: the mean of -ln(probability of the right letter), as a number.

    logits has the shape (n, letters), one row of scores for each example. targets has the shape (n,): the number of the
    right letter in each row. The probabilities of a row are the softmax of its logits. Logits may be large, such as
    1000, and probabilities too small for a float.

    >>> round(float(cross_entropy(np.array([[2.0, 1.0, 0.0]]), np.array([1]))), 3)
    1.408
    >>> float(cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])))
    1000.0
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(targets)), targets].mean()


def cross_entropy_gradient(logits: Array, targets: Array) -> Array:
    """Return the gradient of the cross-entropy of a batch with respect to the logits.

    The shapes are those of cross_entropy. The loss is the mean over the n rows, so each row has a share of 1 / n.

    >>> np.round(cross_entropy_gradient(np.array([[2.0, 1.0, 0.0]]), np.array([1])), 3)
    array([[ 0.665, -0.755,  0.09 ]])
    """
    result = np.exp(logits - logits.max(axis=1, keepdims=True))
    result /= result.sum(axis=1, keepdims=True)
    result[np.arange(len(targets)), targets] -= 1.0
    return result / len(targets)


def adamw(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    """Return the weight after one step of AdamW for each gradient in a list.

    Each step first multiplies the weight by 1 - lr * weight_decay. Then it is a step of Adam, as in the chapter: with
    the factors 0.9 and 0.999, both means corrected, and 1e-8 added to the root.

    >>> round(adamw(1.0, [4.0], 0.1, 0.5), 6)
    0.85
    """
    return _adamw(weight, gradients, lr, weight_decay)


def _adamw(
    weight: float, gradients: list[float], lr: float, decay: float, *, corrected: bool = True, after: bool = False,
    into_gradient: bool = False, root: bool = True, first: int = 1, rate: float | None = None,
) -> float:  # fmt: skip
    """Return the weight after some steps of AdamW, or of what differs from it in one option."""
    m = v = 0.0
    shrink = 1.0 - (lr if rate is None else rate) * decay
    for step, g in enumerate(gradients, start=first):
        if into_gradient:
            g += decay * weight
        elif not after:
            weight *= shrink
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        mean, square = (m / (1 - 0.9**step), v / (1 - 0.999**step)) if corrected else (m, v)
        weight -= lr * mean / ((square**0.5 if root else square) + 1e-8)
        if after:
            weight *= shrink
    return weight


# ---- calls ----------------------------------------------------------------------------------------------------------


_TWO_ROWS = np.array([[2.0, 1.0, 0.0], [-1.0, 3.0, 0.5]])
_THREE_ROWS = np.array([[0.5, -2.0, 1.0, 0.0], [3.0, 3.0, 3.0, 3.0], [-1.0, 4.0, 0.0, 2.0]])
_LARGE = np.array([[1000.0, 999.0, 0.0], [-1000.0, -999.0, -1000.0]])
_UNLIKELY = np.array([[-5.0, -1000.0, -4.0]])

_BATCHES = (
    (_TWO_ROWS[:1], np.array([1])), (_TWO_ROWS, np.array([0, 2])), (_THREE_ROWS, np.array([3, 1, 1])),
    (_LARGE[:1], np.array([1])), (_LARGE, np.array([1, 0])), (_UNLIKELY, np.array([1])),
)  # fmt: skip


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _probabilities(logits: Array, axis: int = 1) -> Array:
    exps = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exps / exps.sum(axis=axis, keepdims=True)


def _right(values: Array, targets: Array) -> Array:
    return values[np.arange(len(targets)), targets]


def _one_hot(logits: Array, targets: Array) -> Array:
    return np.eye(logits.shape[1])[targets]


def _overflow(logits: Array, targets: Array) -> float:
    with np.errstate(all="ignore"):
        exps = np.exp(logits)
        return -np.log(_right(exps, targets) / exps.sum(axis=1)).mean()


def _underflow(logits: Array, targets: Array) -> float:
    with np.errstate(all="ignore"):
        return -np.log(_right(_probabilities(logits), targets)).mean()


def _one_maximum(logits: Array, targets: Array) -> float:
    with np.errstate(all="ignore"):
        exps = np.exp(logits - logits.max())
        return -np.log(_right(exps, targets) / exps.sum(axis=1)).mean()


def _sums_as_row(logits: Array, targets: Array) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return -_right(shifted - np.log(np.exp(shifted).sum(axis=1)), targets).mean()


def _positive(logits: Array, targets: Array) -> float:
    return -cross_entropy(logits, targets)


def _sum(logits: Array, targets: Array) -> float:
    return cross_entropy(logits, targets) * len(targets)


def _mean_probability(logits: Array, targets: Array) -> float:
    with np.errstate(all="ignore"):
        return -np.log(_right(_probabilities(logits), targets).mean())


def _in_bits(logits: Array, targets: Array) -> float:
    return cross_entropy(logits, targets) / np.log(2)


def _down_the_columns(logits: Array, targets: Array) -> float:
    with np.errstate(all="ignore"):
        return -np.log(_right(_probabilities(logits, axis=0), targets)).mean()


def _sum_of_rows(logits: Array, targets: Array) -> Array:
    return _probabilities(logits) - _one_hot(logits, targets)


def _opposite(logits: Array, targets: Array) -> Array:
    return -cross_entropy_gradient(logits, targets)


def _only_probabilities(logits: Array, targets: Array) -> Array:
    return _probabilities(logits) / len(targets)


def _only_the_target(logits: Array, targets: Array) -> Array:
    return _sum_of_rows(logits, targets) * _one_hot(logits, targets) / len(targets)


def _whole_columns(logits: Array, targets: Array) -> Array:
    result = _probabilities(logits)
    result[:, targets] -= 1.0
    return result / len(targets)


def _by_all_entries(logits: Array, targets: Array) -> Array:
    return _sum_of_rows(logits, targets) / logits.size


def _gradient_with_overflow(logits: Array, targets: Array) -> Array:
    with np.errstate(all="ignore"):
        exps = np.exp(logits)
        return (exps / exps.sum(axis=1, keepdims=True) - _one_hot(logits, targets)) / len(targets)


def _without_decay(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, 0.0)


def _decay_in_the_gradient(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, into_gradient=True)


def _decay_at_the_end(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, after=True)


def _decay_without_lr(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, rate=1.0)


def _not_corrected(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, corrected=False)


def _second_step_first(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, first=2)


def _zeroth_step(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, first=0)


def _decay_once(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight * (1 - lr * weight_decay), gradients, lr, 0.0)


def _without_root(weight: float, gradients: list[float], lr: float = 0.1, weight_decay: float = 0.01) -> float:
    return _adamw(weight, gradients, lr, weight_decay, root=False)


CHAPTER = Chapter(
    4,
    "a network that learns",
    "docs/learn/4-a-network-that-learns.md",
    (
        Exercise(
            cross_entropy,
            _BATCHES,
            "Subtract from each row its maximum. Then ln(probability) is shifted - ln(sum of exp(shifted)).",
            (
                Mistake(_overflow, "exp of a large logit is infinite. Subtract the maximum of each row first."),
                Mistake(_underflow, "A probability can become 0, whose logarithm is infinite. Write ln(exp(a) / s) as "
                                    "a - ln(s)."),
                Mistake(_one_maximum, "Each row needs its own maximum. In a row far below that of the batch, "
                                      "every exp is 0."),
                Mistake(_sums_as_row, "The maxima and the sums must be columns, as in chapter 2: use keepdims=True."),
                Mistake(_positive, "The logarithm of a probability is negative. The loss has a minus."),
                Mistake(_sum, "This is the sum over the rows. The loss is their mean."),
                Mistake(_mean_probability, "Take the logarithm in each row first, then the mean."),
                Mistake(_in_bits, "The loss uses the natural logarithm, np.log."),
                Mistake(_down_the_columns, "The logits of one example are a row. Sum over axis=1."),
            ),
        ),
        Exercise(
            cross_entropy_gradient,
            _BATCHES,
            "The gradient of a row is its probabilities, minus 1 at the right letter, divided by the number of rows.",
            (
                Mistake(_sum_of_rows, "This is the gradient of the sum. The loss is a mean: divide by the number of "
                                      "rows."),
                Mistake(_opposite, "The sign is the other one: the probabilities minus the ones."),
                Mistake(_only_probabilities, "Subtract 1 at the right letter of each row."),
                Mistake(_only_the_target, "The other letters have a gradient, too: their probability."),
                Mistake(_whole_columns, "p[:, targets] takes these columns of every row. p[np.arange(n), targets] "
                                        "takes one number of each of n rows."),
                Mistake(_by_all_entries, "The mean is over the rows, not over all entries of the logits."),
                Mistake(_gradient_with_overflow, "exp of a large logit is infinite. Subtract the maximum of each row "
                                                 "first."),
            ),
        ),
        Exercise(
            adamw,
            (
                (1.0, [4.0], 0.1, 0.5), (1.0, [4.0, 2.0]), (-2.0, [1.0, -3.0, 0.5], 0.2, 0.1),
                (0.5, [0.0, 0.0, 2.0], 0.05, 1.0), (3.0, []),
            ),
            "In each step: shrink the weight, update both means, correct them, move the weight.",
            (
                Mistake(_without_decay, "This is Adam. Multiply the weight by 1 - lr * weight_decay first."),
                Mistake(_decay_in_the_gradient, "The decay is not a part of the gradient, so Adam does not divide it."),
                Mistake(_decay_at_the_end, "Shrink the weight before the step of Adam, not after it."),
                Mistake(_decay_without_lr, "The factor is 1 - lr * weight_decay."),
                Mistake(_not_corrected, "Divide the means by 1 - 0.9**step and 1 - 0.999**step."),
                Mistake(_zeroth_step, "Count the steps from 1: for 0 the corrections would divide by 0."),
                Mistake(_second_step_first, "Count the steps from 1."),
                Mistake(_decay_once, "The weight shrinks in each step, not only once."),
                Mistake(_without_root, "Divide by the root of the mean square."),
            ),
        ),
    ),
)  # fmt: skip
