"""Figures and their files: a figure without a window, texts that every font can draw, and files that repeat bit by bit.

Needs matplotlib (the extra `plot`).
"""

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.errors import UserError, short
from tensorlite import serialization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# The kinds of pictures by the suffix of their file, each with a pattern of the first bytes of such a file.
FORMATS = {".png": rb"\x89PNG", ".svg": rb"\s*<(svg|[?!].*<svg)"}

# White space that a reader of a picture could not see, and what stands for it.
VISIBLE = {" ": "\N{OPEN BOX}", "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
# Categories of characters that have no shape of their own, or that change the order of their neighbours.
SHAPELESS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me")
LONGEST = 16  # characters of a label


class PictureError(UserError, ValueError):
    """A picture that cannot be drawn, or a file that it cannot be written to."""


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches. It belongs to no window, so that no display is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def check_path(path: str | Path) -> Path:
    """Return the path of a picture that can be written. Raises PictureError for another suffix or another file."""
    shown = short(str(path))
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise PictureError(f"{shown}: expected a name that ends in {' or '.join(FORMATS)}")
    if path.exists():
        if not path.is_file():
            raise PictureError(f"{shown} is not a file. Give another name")
        with path.open("rb") as file:
            begin = file.read(1000)
        if begin and not re.match(FORMATS[kind], begin, re.DOTALL):
            raise PictureError(f"{shown} exists, and is not a {kind[1:].upper()} picture. Give another name")
    elif not path.parent.is_dir():
        raise PictureError(f"{shown}: there is no folder {short(str(path.parent))}. Make it first")
    return path


def save_figure(figure: "Figure", path: str | Path, dpi: int = 120) -> Path:
    """Write a figure to a file whose suffix, .png or .svg, says what it becomes, and return its path.

    The figure of a second, equal call gives the same bytes. A picture that is there is replaced. Raises PictureError
    for another suffix and for a file of another kind, OSError if it cannot be written.
    """
    import matplotlib

    path = check_path(path)
    kind = path.suffix.lower()[1:]
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "tensorlite"}), serialization.atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
    return path


def label(text: str) -> str:
    """Return the text of a token or a name for a picture: white space visible, cut if it is long, no missing glyphs."""
    cut = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return drawable("".join(VISIBLE.get(c, c) for c in cut))


def count_of(count: int, thing: str) -> str:
    """Return a number of things in words, such as 1 token or 2,000 tokens."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def drawable(text: str) -> str:
    """Return a text in which a character that the font does not have is written as Python escapes it."""
    return "".join(c if c in known_characters() and not is_shapeless(c) else ascii(c)[1:-1] for c in text)


def is_shapeless(character: str) -> bool:
    """Return whether a character, other than a space, cannot be seen by itself."""
    return character != " " and unicodedata.category(character) in SHAPELESS


@cache
def known_characters() -> frozenset[str]:
    """Return the characters of the font of labels."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(map(chr, font.get_charmap()))


def set_text(text: "Text") -> "Text":
    """Make a text of matplotlib draw its characters as they are, in the font of labels. A dollar is then no formula."""
    text.set_parse_math(False)
    text.set_fontfamily("DejaVu Sans")
    return text


def set_title(axes: "Axes", title: str) -> None:
    """Set the title of axes, in which every character stands for itself."""
    set_text(axes.set_title(drawable(title), fontsize=10))


def set_ticks(axes: "Axes", which: str, labels: list[str], size: float = 7, most: int = 10_000) -> None:
    """Put labels at 0, 1, ... along the axis `which`, "x" or "y". Of more than `most` only each k-th one is drawn."""
    step = max(1, -(-len(labels) // most))
    axis = axes.xaxis if which == "x" else axes.yaxis
    places = range(0, len(labels), step)
    turned = which == "x" and max(map(len, labels), default=0) > 2
    axis.set_ticks(list(places), [labels[i] for i in places], fontsize=size, rotation=90 if turned else 0)
    for text in axis.get_ticklabels():
        set_text(text)


def tokens_text(data: bytes) -> str:
    """Return the bytes of a token as a label. Bytes that are no whole characters look as in Python, such as \\xe2."""
    return label(data.decode("utf-8", errors="backslashreplace")) or "(empty)"
