"""A map of embeddings: tokens, or positions, in the plane in which they differ the most.

Source: Pearson 1901, "On lines and planes of closest fit to systems of points in space": the principal components.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt.inspect.figures import PictureError, count_of, new_figure, set_text, set_title
from gpt.inspect.tokens import labels_of
from gpt.model import GPT, QuantizedEmbedding
from gpt.tokenizer import Tokenizer, check_token_ids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# More tokens than PLAIN get a larger picture, in which fewer labels cover others; at most LARGEST times the area.
PLAIN, LARGEST = 200, 8

# Kinds of tokens, each with a colour and a test of the text without the space before it. The first that holds decides.
KINDS: list[tuple[str, str, Callable[[str], bool]]] = [
    ("white space", "tab:brown", lambda text: not text.strip()),
    ("digits", "tab:green", str.isdecimal),
    ("lower case", "tab:blue", lambda text: text.isalpha() and text == text.lower()),
    ("upper case", "tab:red", lambda text: text.isalpha()),
    ("other", "tab:gray", lambda text: True),
]


def plot_embeddings(
    model: GPT, tokenizer: Tokenizer, ids: Sequence[int] | None = None, top: int = 200, positions: bool = False
) -> "Figure":
    """Return a figure of the token embeddings in two dimensions, their first two principal components.

    ids: the tokens; None takes the first `top` that have a text which can be read. In a vocabulary of byte pairs these
    are the shortest and most frequent ones. positions: draw the embeddings of the positions next to them.

    Raises PictureError if the model has no embeddings of positions or there is no token, TokenError for a wrong id.
    """
    chosen = readable(tokenizer, min(tokenizer.vocab_size, model.config.vocab_size), top) if ids is None else ids
    tokens = list(dict.fromkeys(check_token_ids(chosen, model.config.vocab_size).tolist()))
    if not tokens:
        raise PictureError("plot_embeddings: expected at least one token, got none. Give a text, or a larger top")
    places = embeddings_of_positions(model) if positions else None
    side = 7 * float(np.clip(len(tokens) / PLAIN, 1, LARGEST)) ** 0.5
    figure = new_figure(2 * side + 1 if positions else side + 1, side)
    axes: Axes = figure.add_subplot(1, 2 if positions else 1, 1)
    points, shares = principal_components(embeddings_of_tokens(model, tokens))
    texts = [tokenizer.decode_bytes([token]).decode(errors="replace") for token in tokens]
    for kind, color, _ in KINDS:
        own = [i for i, text in enumerate(texts) if kind_of(text) == kind]
        if own:
            axes.scatter(points[own, 0], points[own, 1], s=6, color=color, label=kind)
    for label, text, (x, y) in zip(labels_of(tokenizer, tokens), texts, points, strict=True):
        color = next(color for kind, color, _ in KINDS if kind == kind_of(text))
        note = axes.annotate(label, (x, y), (2, 2), textcoords="offset points", fontsize=7, color=color)
        set_text(note)
    finish(axes, count_of(len(tokens), "token"), shares)
    axes.legend(fontsize=8)
    if places is not None:
        draw_positions(figure.add_subplot(1, 2, 2), places)
    return figure


def readable(tokenizer: Tokenizer, count: int, top: int) -> list[int]:
    """Return the first `top` of `count` tokens whose text is whole, without control characters, and not special."""
    special = set(tokenizer.special_tokens.values())
    found: list[int] = []
    for token in range(count):
        if len(found) >= top:
            break
        try:
            text = tokenizer.decode_bytes([token]).decode()
        except UnicodeDecodeError:
            continue
        if token not in special and text and (text.isprintable() or text in "\n\t"):
            found.append(token)
    return found


def kind_of(text: str) -> str:
    """Return the name of the kind of a token."""
    bare = text.strip()
    return next(kind for kind, _, holds in KINDS if holds(bare))


def embeddings_of_tokens(model: GPT, tokens: Sequence[int]) -> Array:
    """Return the rows of the token embedding, (number of tokens, C), float64."""
    if isinstance(model.wte, QuantizedEmbedding):
        return model.wte.matrix.dequantize(np.array(tokens)).astype(np.float64)
    return model.wte.weight.numpy(force=True)[list(tokens)].astype(np.float64)


def embeddings_of_positions(model: GPT) -> Array:
    """Return what the model adds for each position, (block_size, C), float64. Raises PictureError if it is nothing."""
    kind = model.config.position
    if kind == "rope":
        raise PictureError(
            "plot_embeddings: the model has no embedding of positions, because it turns queries and keys instead "
            "(rotary positions). Leave positions out"
        )
    table = model.wpe.weight if kind == "learned" else model.sinusoids
    return table.numpy(force=True).astype(np.float64)


def principal_components(rows: Array) -> tuple[Array, Array]:
    """Return rows (n, C) in their first two principal components (n, 2), and the shares (2,) of the variance.

    A component points to where the entry with the largest absolute value is positive, so that a picture repeats.
    Components that the rows do not have are zeros.
    """
    centred = rows - rows.mean(0)
    u, s, vh = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(vh[np.arange(len(vh)), np.abs(vh).argmax(1)])
    points, shares = np.zeros((len(rows), 2)), np.zeros(2)
    k = min(2, len(s))
    points[:, :k] = (u * s * signs)[:, :k]
    total = (s**2).sum()
    if total > 0:
        shares[:k] = s[:k] ** 2 / total
    return points, shares


def draw_positions(axes: "Axes", places: Array) -> None:
    """Draw the embeddings of the positions (T, C) as a line from the first one to the last."""
    points, shares = principal_components(places)
    axes.plot(points[:, 0], points[:, 1], color="0.8", linewidth=0.8, zorder=1)
    dots = axes.scatter(points[:, 0], points[:, 1], s=8, c=np.arange(len(points)), cmap="viridis", zorder=2)
    for at in sorted({0, *range(0, len(points), max(1, len(points) // 8)), len(points) - 1}):
        axes.annotate(str(at), (points[at, 0], points[at, 1]), (3, 3), textcoords="offset points", fontsize=8)
    finish(axes, count_of(len(points), "position"), shares)
    axes.figure.colorbar(dots, ax=axes, label="position", shrink=0.6)


def finish(axes: "Axes", title: str, shares: Array) -> None:
    """Label axes of principal components, with the share of the variance that each one has."""
    set_title(axes, title)
    axes.set(xlabel=f"first component ({shares[0]:.1%} of the variance)", ylabel=f"second component ({shares[1]:.1%})")
    axes.grid(alpha=0.2)
