"""Heat maps over the tokens of a text: attention by layer and head, and the predictions of each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt.inspect.attention import attention_weights
from gpt.inspect.figures import PictureError, count_of, new_figure, set_text, set_ticks, set_title
from gpt.inspect.lens import logit_lens
from gpt.inspect.tokens import TokenIds, ids_of, labels_of
from gpt.model import GPT
from gpt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

# A map with labels has this many inches for each token, and is at most this large. Then only some labels are drawn.
TOKEN_INCHES, LARGEST_MAP = 0.17, 20.0
MOST_MAPS = 16  # maps with labels in one figure; more are tiles without labels
ABREAST = 4  # maps with labels side by side; further heads come below
LENS_COLUMNS = 24  # positions side by side in the picture of a lens; the following ones come below


def plot_attention(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | TokenIds,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> "Figure":
    """Return a figure of the attention weights for a prompt: a row is a token, and its cells what it attends to.

    prompt: a text, or token ids. layers, heads: numbers from 0; negative ones count from the end; None takes all.
    Up to 16 maps have the tokens as labels, for more maps there is one picture of small tiles. A cell is white for 0
    and dark for 1.

    Raises PictureError for a layer or a head that does not exist, and the errors of `attention_weights`.
    """
    ids = ids_of(tokenizer, prompt)
    config = model.config
    rows, columns = numbers("layer", layers, config.n_layer), numbers("head", heads, config.n_head)
    weights = attention_weights(model, ids)[rows][:, columns]  # (rows, columns, T, T)
    if weights.shape[0] * weights.shape[1] > MOST_MAPS:
        return tiles(weights, rows, columns)
    return labelled_maps(weights, rows, columns, labels_of(tokenizer, ids))


def numbers(name: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    """Return the numbers of layers or heads that are chosen, each from 0 to count - 1. Raises PictureError."""
    if chosen is not None and not len(chosen):
        raise PictureError(f"plot_attention: expected at least one {name}, got none. Leave it out for all")
    for number in chosen or ():
        if not -count <= number < count:
            raise PictureError(f"there is no {name} {number}: the model has {count}, which are 0 to {count - 1}")
    return list(range(count)) if chosen is None else list(dict.fromkeys(number % count for number in chosen))


def labelled_maps(weights: NDArray[np.float32], rows: list[int], columns: list[int], labels: list[str]) -> "Figure":
    """Return a figure with axes for each map of weights (rows, columns, T, T), with labels of the T tokens."""
    T, count = len(labels), len(rows) * len(columns)
    side_by_side = len(columns) if len(columns) <= ABREAST else min(ABREAST, count)
    size = float(np.clip(TOKEN_INCHES * T + 0.8, 2.2, LARGEST_MAP / (side_by_side if T > 40 else 1)))
    below = -(-count // side_by_side)
    figure = new_figure(size * side_by_side + 0.8, (size + 0.2) * below)
    grid: Any = figure.subplots(below, side_by_side, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    most, points = max(1, int((size - 0.8) / 0.09)), float(np.clip(45 * (size - 0.8) / T, 5, 8))
    image = None
    places = [(layer, head) for layer in rows for head in columns]
    for (layer, head), values, axes in zip(places, weights.reshape(count, T, T), grid.flat):
        image = axes.imshow(values, cmap="Blues", norm=shade(), interpolation="nearest")
        set_title(axes, f"layer {layer}, head {head}")
        set_ticks(axes, "x", labels, points, most)
        set_ticks(axes, "y", labels, points, most)
    assert image is not None
    figure.colorbar(image, ax=figure.axes, label="attention weight", shrink=0.6, aspect=30)
    grid[below - 1, 0].set(xlabel="token attended to", ylabel="token that attends")
    return figure


def shade() -> "PowerNorm":
    """Return the scale of colours of weights: their square root, because most weights of a long text are small."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0, 1)


def tiles(weights: NDArray[np.float32], rows: list[int], columns: list[int]) -> "Figure":
    """Return a figure with one axes, in which the maps (rows, columns, T, T) are tiles with lines between them."""
    R, H, T, _ = weights.shape
    step = T + max(1, T // 16)
    picture = np.full((R * step, H * step), np.nan, np.float32)
    for row in range(R):
        for column in range(H):
            picture[row * step : row * step + T, column * step : column * step + T] = weights[row, column]
    side = float(np.clip(24 / max(R, H), 0.4, 1.2))
    figure = new_figure(max(4.0, side * H + 1.8), max(3.0, side * R + 1.2))
    axes: Axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    smooth = "none" if R * step < 1500 else "auto"
    image = axes.imshow(picture, cmap="Blues", norm=shade(), interpolation=smooth)
    centre = (T - 1) / 2
    axes.set_xticks([column * step + centre for column in range(H)], [str(head) for head in columns])
    axes.set_yticks([row * step + centre for row in range(R)], [str(layer) for layer in rows])
    axes.tick_params(length=0)
    axes.set(xlabel="head", ylabel="layer")
    set_title(axes, f"attention weights, {count_of(T, 'token')}")
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.6, aspect=30)
    return figure


def plot_lens(
    model: GPT, tokenizer: Tokenizer, prompt: str | TokenIds, layers: Sequence[int] | None = None, top: int = 1
) -> "Figure":
    """Return a figure of the logit lens: what each layer would predict after each token of a prompt.

    A cell has the `top` likeliest tokens, the likeliest first, on a colour that is darker for a larger probability of
    the first one. Without `layers` the lowest row is what the model itself predicts. A prompt of more than 24 tokens
    continues below.

    prompt: a text, or token ids. layers: numbers from 0, negative ones from the end; None takes all, and the embedding.
    Raises PictureError for a layer that does not exist, and the errors of `logit_lens`.
    """
    ids = ids_of(tokenizer, prompt)
    chosen = numbers("layer", layers, model.config.n_layer)
    lens = logit_lens(model, ids, top)
    rows = [layer + 1 for layer in chosen] if layers is not None else list(range(model.config.n_layer + 1))
    names = ["embedding", *(f"layer {layer}" for layer in range(model.config.n_layer))]
    T, k = len(ids), lens.ids.shape[-1]
    words = dict(zip(unique := sorted({int(i) for i in lens.ids[rows].ravel()}), labels_of(tokenizer, unique)))
    labels = labels_of(tokenizer, ids)
    width = -(-T // -(-T // LENS_COLUMNS))  # All parts have about the same length.
    parts = [range(start, min(start + width, T)) for start in range(0, T, width)]
    cell = 0.2 + 0.06 * min(10, max(map(len, [*labels, *words.values()])))
    height = len(rows) * (0.06 + 0.14 * k) + 0.9
    figure = new_figure(max(4.0, cell * width + 1.2), height * len(parts) + 0.9)
    grid: Any = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    image = None
    for axes, part in zip(grid, parts, strict=True):
        shown = np.full((len(rows), width), np.nan, np.float32)
        shown[:, : len(part)] = lens.probabilities[rows][:, part.start : part.stop, 0]
        image = axes.imshow(shown, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
        for y, row in enumerate(rows):
            for x, position in enumerate(part):
                text = "\n".join(words[int(token)][:10] for token in lens.ids[row, position])
                color = "white" if lens.probabilities[row, position, 0] > 0.6 else "black"
                set_text(axes.text(x, y, text, ha="center", va="center", fontsize=6, color=color, clip_on=True))
        set_ticks(axes, "x", labels[part.start : part.stop])
        set_ticks(axes, "y", [names[row] for row in rows])
        axes.tick_params(length=0)
    assert image is not None
    grid[-1].set_xlabel("the prompt: a cell predicts the token after it")
    # The bar is above the maps, because its label is longer than a picture of few layers is high.
    figure.colorbar(image, ax=list(grid), label="probability of the likeliest token", location="top", aspect=40)
    return figure
