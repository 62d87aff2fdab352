"""The exercises of chapter 7: training."""

from __future__ import annotations

import math

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray
Gradients = dict[str, Array]


def learning_rate(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    """Return the learning rate of a step: a warm-up, then a straight line down. The first step is 0.

    The warm-up has `warmup` steps. The first of them has the rate peak / (warmup + 1), the second twice that, and so
    on. The step after the warm-up has the peak. From there a straight line leads to `lowest`, which is reached at
    step `total`. Later steps have `lowest`.

    >>> [round(learning_rate(step, 1.0, 0.2, 3, 7), 3) for step in range(9)]
    [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / (total - warmup))
    return peak + (lowest - peak) * done


def clip(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    """Return the norm of all gradients together, and the gradients after clipping to max_norm.

    gradients: an array for each parameter, by its name. Their norm is the root of the sum of the squares of all
    numbers in all arrays. If it is above max_norm, all gradients are multiplied by the same factor, so that their norm
    is max_norm. Else they stay as they are. Return a tuple: the norm before clipping, and a dict with the same names.

    >>> norm, clipped = clip({"a": np.array([3.0]), "b": np.array([[4.0]])}, 1.0)
    >>> round(float(norm), 3), np.round(clipped["a"], 3), np.round(clipped["b"], 3)
    (5.0, array([0.6]), array([[0.8]]))
    """
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
    factor = max_norm / norm if norm > max_norm else 1.0
    return norm, {name: g * factor for name, g in gradients.items()}


def summarize(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    """Return the loss, the perplexity and the bits per character of a whole validation set.

    losses: the mean loss of each batch, in nats per token. tokens: the number of tokens in each batch; batches may have
    different sizes, and each token counts the same. characters: the number of characters of all tokens together.

    >>> [round(number, 3) for number in summarize([2.0, 1.0], [30, 10], 80)]
    [1.75, 5.755, 1.262]
    """
    total = sum(loss * count for loss, count in zip(losses, tokens))
    loss = total / sum(tokens)
    return loss, math.exp(loss), total / math.log(2) / characters


# ---- calls ----------------------------------------------------------------------------------------------------------


_LARGE = {"weight": np.array([[3.0, 0.0], [-4.0, 12.0]]), "bias": np.array([84.0])}
_SMALL = {"weight": np.array([[0.3, -0.4]]), "bias": np.array([0.0, 0.0])}
_ZERO = {"bias": np.array([0.0, 0.0])}


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _cosine(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / (total - warmup))
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * done)) / 2


def _first_rate_zero(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    return peak * step / warmup if step < warmup else learning_rate(step, peak, lowest, warmup, total)


def _peak_too_early(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    return peak * (step + 1) / warmup if step < warmup else learning_rate(step, peak, lowest, warmup, total)


def _from_the_first_step(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    if step < warmup:
        return learning_rate(step, peak, lowest, warmup, total)
    return peak + (lowest - peak) * min(1.0, step / total)


def _down_to_zero(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    if step < warmup:
        return learning_rate(step, peak, lowest, warmup, total)
    return peak * (1 - min(1.0, (step - warmup) / (total - warmup)))


def _never_stops(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    if step < warmup:
        return learning_rate(step, peak, lowest, warmup, total)
    return peak + (lowest - peak) * (step - warmup) / (total - warmup)


def _without_warmup(step: int, peak: float, lowest: float, warmup: int, total: int) -> float:
    return peak + (lowest - peak) * min(1.0, max(0, step - warmup) / (total - warmup))


def _norm(*arrays: Array) -> float:
    return math.sqrt(sum(float((g * g).sum()) for g in arrays))


def _scaled(gradients: Gradients, norm: float, max_norm: float) -> Gradients:
    factor = max_norm / norm if norm > max_norm else 1.0
    return {name: g * factor for name, g in gradients.items()}


def _each_alone(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    clipped = {name: _scaled({name: g}, _norm(g), max_norm)[name] for name, g in gradients.items()}
    return _norm(*gradients.values()), clipped


def _always(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    norm = _norm(*gradients.values())
    return norm, {name: g * (max_norm / (norm + 1e-6)) for name, g in gradients.items()}


def _sum_of_norms(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    norm = sum(_norm(g) for g in gradients.values())
    return norm, _scaled(gradients, norm, max_norm)


def _without_root(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    norm = _norm(*gradients.values()) ** 2
    return norm, _scaled(gradients, norm, max_norm)


def _each_number(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    return _norm(*gradients.values()), {name: np.clip(g, -max_norm, max_norm) for name, g in gradients.items()}


def _unchanged(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    return _norm(*gradients.values()), gradients


def _to_norm_one(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    norm, clipped = clip(gradients, max_norm)
    return norm, {name: g / max_norm if norm > max_norm else g for name, g in clipped.items()}


def _norm_after(gradients: Gradients, max_norm: float) -> tuple[float, Gradients]:
    clipped = clip(gradients, max_norm)[1]
    return _norm(*clipped.values()), clipped


def _mean_of_batches(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss = sum(losses) / len(losses)
    return loss, math.exp(loss), loss / math.log(2) * sum(tokens) / characters


def _mean_perplexity(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, _, bits = summarize(losses, tokens, characters)
    return loss, sum(math.exp(x) * count for x, count in zip(losses, tokens)) / sum(tokens), bits


def _bits_per_token(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, perplexity, _ = summarize(losses, tokens, characters)
    return loss, perplexity, loss / math.log(2)


def _nats_per_character(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, perplexity, bits = summarize(losses, tokens, characters)
    return loss, perplexity, bits * math.log(2)


def _times_characters(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, perplexity, _ = summarize(losses, tokens, characters)
    return loss, perplexity, loss / math.log(2) * characters / sum(tokens)


def _of_one_token(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, perplexity, _ = summarize(losses, tokens, characters)
    return loss, perplexity, loss / math.log(2) / characters


def _power_of_two(losses: list[float], tokens: list[int], characters: int) -> tuple[float, float, float]:
    loss, _, bits = summarize(losses, tokens, characters)
    return loss, 2.0**loss, bits


CHAPTER = Chapter(
    7,
    "training",
    "docs/learn/7-training.md",
    (
        Exercise(
            learning_rate,
            (
                (0, 1.0, 0.2, 3, 7), (2, 1.0, 0.2, 3, 7), (3, 1.0, 0.2, 3, 7), (4, 1.0, 0.2, 3, 7),
                (7, 1.0, 0.2, 3, 7), (100, 1.0, 0.2, 3, 7), (0, 0.01, 0.0, 0, 50), (20, 0.01, 0.0, 0, 50),
                (60, 0.01, 0.0, 0, 50), (1500, 0.001, 0.0001, 100, 2000),
            ),
            "Before step `warmup` the rate is peak * (step + 1) / (warmup + 1). After it, how much of the way is done?",
            (
                Mistake(_cosine, "This is the cosine of the chapter. Here the rate falls in a straight line."),
                Mistake(_first_rate_zero, "The first step would not learn. Its rate is peak / (warmup + 1)."),
                Mistake(_peak_too_early, "Divide by warmup + 1: the first step after the warm-up has the peak."),
                Mistake(_from_the_first_step, "The way down begins at step `warmup`, not at step 0."),
                Mistake(_down_to_zero, "The line ends at `lowest`, not at 0."),
                Mistake(_never_stops, "After step `total` the rate stays at `lowest`."),
                Mistake(_without_warmup, "In the first `warmup` steps the rate rises."),
            ),
        ),
        Exercise(
            clip,
            ((_LARGE, 1.0), (_SMALL, 1.0), (_LARGE, 100.0), (_LARGE, 17.0), (_ZERO, 1.0)),
            "Add the squares of all numbers in all arrays, and take the root. Is it above max_norm?",
            (
                Mistake(_each_alone, "All gradients get the same factor, so that their direction stays."),
                Mistake(_always, "A norm below max_norm stays: clipping never makes gradients larger."),
                Mistake(_sum_of_norms, "Add the squares of all arrays first, then take one root."),
                Mistake(_without_root, "The norm is the root of the sum of squares."),
                Mistake(_each_number, "This limits each number by itself. Multiply all of them by one factor."),
                Mistake(_unchanged, "These gradients are not clipped. Multiply all of them by max_norm / norm."),
                Mistake(_to_norm_one, "These gradients have the norm 1. Multiply them by max_norm, too."),
                Mistake(_norm_after, "Return the norm before clipping. After it, it says nothing."),
            ),
            parts=("the norm", "the clipped gradients"),
            tolerance=1e-5,
        ),
        Exercise(
            summarize,
            (([2.0, 1.0], [30, 10], 80), ([1.5], [64], 64), ([0.5, 0.7, 2.0], [512, 512, 6], 3090), ([0.0], [7], 21)),
            "Multiply each loss by its tokens, add, and divide by all tokens. The bits are per character.",
            (
                Mistake(_mean_of_batches, "A batch of few tokens counts less: weight each loss by its tokens."),
                Mistake(_mean_perplexity, "The perplexity is exp of the mean loss, not the mean of the exps."),
                Mistake(_bits_per_token, "These are bits per token. Multiply by tokens, and divide by characters."),
                Mistake(_nats_per_character, "These are nats per character. Divide by ln 2."),
                Mistake(_times_characters, "All bits together are loss / ln 2 * tokens. Divide them by the "
                                           "characters."),
                Mistake(_of_one_token, "The loss is that of one token. Multiply the bits by all tokens first."),
                Mistake(_power_of_two, "The loss is in nats, so the perplexity is e to its power."),
            ),
            parts=("the loss", "the perplexity", "the bits per character"),
        ),
    ),
)  # fmt: skip
