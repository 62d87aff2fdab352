"""Draw the pictures of docs/learn with matplotlib.

    python tools/make_lesson_pictures.py [FOLDER]        # docs/learn by default
"""

import contextlib
import io
import json
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
BLUE, RED, GREY, PALE = "#1f5fa8", "#b3322c", "#444444", "#eef3f9"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure without axes, in inches, whose data units are inches, too."""
    figure = plt.figure(figsize=(width, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, title: str, value: str, gradient: str) -> None:
    """Draw a value of a graph, centred at (x, y): its name, its number, its gradient."""
    style = FancyBboxPatch((x - 0.7, y - 0.4), 1.4, 0.8, boxstyle="round,pad=0.03", fc=PALE, ec=GREY)
    axes.add_patch(style)
    axes.text(x, y + 0.2, title, ha="center", va="center", fontsize=11, color=GREY)
    axes.text(x - 0.33, y - 0.15, value, ha="center", va="center", fontsize=13, color=BLUE)
    axes.text(x + 0.33, y - 0.15, gradient, ha="center", va="center", fontsize=13, color=RED)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0) -> None:
    """Draw an arrow from one point to another."""
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.3, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def graph() -> Figure:
    """Draw the graph of y = a * b + a at a = 2, b = 3: values in blue, gradients in red."""
    figure, axes = canvas(8.0, 3.5)
    box(axes, 1.0, 2.6, "a", "2", "1+3=4")
    box(axes, 1.0, 0.9, "b", "3", "2")
    box(axes, 4.0, 1.4, "h = a * b", "6", "1")
    box(axes, 7.0, 2.3, "y = h + a", "8", "1")
    for start, end, slope, place in (
        ((1.75, 2.4), (3.25, 1.65), "slope 3", (2.55, 2.2)),
        ((1.75, 0.9), (3.25, 1.25), "slope 2", (2.55, 0.85)),
        ((4.75, 1.5), (6.25, 2.1), "slope 1", (5.6, 1.6)),
        ((1.75, 2.75), (6.25, 2.5), "slope 1", (4.0, 2.82)),
    ):
        arrow(axes, start, end, GREY)
        axes.text(*place, slope, ha="center", va="center", fontsize=10, color=GREY)
    axes.text(0.3, 0.2, "value", fontsize=11, color=BLUE)
    axes.text(0.85, 0.2, "gradient of the result with respect to it", fontsize=11, color=RED)
    return figure


def grid(axes: Axes, x: float, y: float, rows: list[list[str]], color: str, faded: tuple[int, ...] = ()) -> None:
    """Draw a table of numbers with its upper left corner at (x, y). The rows in `faded` are dashed."""
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            left, bottom = x + 0.55 * j, y - 0.45 * (i + 1)
            fill, line = ("white", "--") if i in faded else (PALE, "-")
            axes.add_patch(plt.Rectangle((left, bottom), 0.55, 0.45, fc=fill, ec=GREY, ls=line))
            axes.text(left + 0.275, bottom + 0.225, text, ha="center", va="center", fontsize=11, color=color)


def broadcasting() -> Figure:
    """Draw a row that is repeated forwards, and the columns of its gradient that are summed backwards."""
    figure, axes = canvas(8.0, 3.3)
    axes.text(0.3, 2.95, "forwards: b is repeated", fontsize=12, color=BLUE)
    grid(axes, 0.3, 2.3, [["10", "20", "30"]], BLUE)
    arrow(axes, (2.1, 2.1), (2.75, 2.1), BLUE)
    grid(axes, 2.9, 2.55, [["10", "20", "30"], ["10", "20", "30"]], BLUE, faded=(1,))
    axes.text(4.8, 2.05, "+ x, of the shape (2, 3)", fontsize=11, color=GREY)
    axes.text(0.3, 1.4, "backwards: the copies are summed", fontsize=12, color=RED)
    grid(axes, 0.3, 0.75, [["0", "2.5", "7"]], RED)
    arrow(axes, (2.75, 0.55), (2.1, 0.55), RED)
    grid(axes, 2.9, 1.0, [["1", "2", "3"], ["-1", "0.5", "4"]], RED)
    axes.text(4.8, 0.5, "g, which arrives at x + b", fontsize=11, color=GREY)
    return figure


def engine() -> Figure:
    """Draw the three nodes of y = sum of (w * x) * x, and the gradients that wait after each step of the pass."""
    figure, axes = canvas(8.0, 4.7)
    nodes = ((2.6, "1  mul", "h = [3, 6]"), (4.6, "2  mul", "k = [3, 12]"), (6.6, "3  sum", "y = 15"))
    leaves = ((0.75, 4.2, "w = 3"), (0.75, 3.1, "x = [1, 2]"))
    for x, title, value in nodes:
        axes.add_patch(FancyBboxPatch((x - 0.6, 3.8), 1.2, 0.75, boxstyle="round,pad=0.03", fc=PALE, ec=GREY))
        axes.text(x, 4.35, title, ha="center", va="center", fontsize=11, color=GREY)
        axes.text(x, 4.03, value, ha="center", va="center", fontsize=11, color=BLUE)
    for x, y, title in leaves:
        axes.text(x, y, title, ha="center", va="center", fontsize=11, color=BLUE)
    for start, end in (((1.2, 4.2), (1.95, 4.2)), ((1.3, 3.2), (2.3, 3.75)), ((3.25, 4.2), (3.95, 4.2)),
                       ((1.3, 3.05), (4.5, 3.75)), ((5.25, 4.2), (5.95, 4.2))):  # fmt: skip
        arrow(axes, start, end, GREY)
    steps = (
        ("at the beginning", {3: "1"}),
        ("after node 3", {2: "[1, 1]"}),
        ("after node 2", {1: "[1, 2]", "x": "[3, 6]"}),
        ("after node 1", {"w": "1 + 4 = 5", "x": "[3, 6] + [3, 6] = [6, 12]"}),
    )
    axes.text(0.3, 2.3, "gradients that have arrived", fontsize=12, color=RED)
    for row, (when, arrived) in enumerate(steps):
        y = 1.8 - 0.45 * row
        axes.text(0.3, y, when, va="center", fontsize=11, color=GREY)
        left = 2.2
        for place, gradient in arrived.items():
            name = f"node {place}" if isinstance(place, int) else place
            text = axes.text(left, y, f"{name}: ", va="center", fontsize=11, color=GREY)
            width = text.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
            text = axes.text(left + width, y, gradient, va="center", fontsize=11, color=RED)
            left += width + text.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi + 0.5
    return figure


def run_listings(page: str) -> dict[str, Any]:
    """Run the listings of a page of docs/learn in the working directory, and return their names."""
    listings = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "learn" / page).read_text("utf-8"), re.M | re.S)
    Path("program.py").write_text("\n".join(listings), "utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        return runpy.run_path("program.py")


def learning() -> Figure:
    """Draw the steps of three optimizers in a valley, and two losses of a network that overfits, of chapter 4."""
    measured = run_listings("4-a-network-that-learns.md")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.3), dpi=100, layout="constrained")
    p, q = np.meshgrid(np.linspace(-9, 4, 200), np.linspace(-1.8, 1.8, 200))
    left.contour(p, q, (p * p + 25 * q * q) / 2, levels=[0.5, 2, 5, 10, 20, 35], colors="#c8d3e0", linewidths=0.8)
    styles = {"SGD": (RED, "o"), "momentum": (BLUE, "s"), "Adam": (GREY, "^")}
    for title, path in measured["paths"].items():
        color, marker = styles[title]
        left.plot(*zip(*path, strict=True), color=color, marker=marker, markersize=3, lw=1, label=title)
    left.set(xlabel="p", ylabel="q", title="20 steps in a valley")
    left.legend(loc="lower right", fontsize=9)
    steps, train, validation = zip(*measured["curve"], strict=True)
    right.plot(steps, validation, color=RED, label="validation set")
    right.plot(steps, train, color=BLUE, label="the 20 names")
    right.set(xlabel="step", ylabel="loss", title="20 names are too few", ylim=(0.2, 1.2))
    right.legend(loc="upper right", fontsize=9)
    return figure


def attention_weights() -> Figure:
    """Draw how the position of "he" reads from three positions: the worked example of chapter 5."""
    figure, axes = canvas(8.0, 3.9)
    for x, title in ((1.95, "key"), (3.05, "score"), (4.45, "weight"), (5.75, "value")):
        axes.text(x, 3.6, title, ha="center", va="center", fontsize=11, color=GREY)
    rows = (("Tom", "(1, 0)", "2", 0.705, "(4, 0)"), ("slept", "(0, 1)", "-1", 0.035, "(0, 2)"),
            ("he", "(1, 1)", "1", 0.259, "(4, 2)"))  # fmt: skip
    for i, (token, key, score, weight, value) in enumerate(rows):
        y = 3.0 - 0.75 * i
        style = FancyBboxPatch((0.2, y - 0.25), 0.95, 0.5, boxstyle="round,pad=0.03", fc=PALE, ec=GREY)
        axes.add_patch(style)
        axes.text(0.67, y, token, ha="center", va="center", fontsize=12, color=GREY)
        for x, text in ((1.95, key), (3.05, score), (5.75, value)):
            axes.text(x, y, text, ha="center", va="center", fontsize=13, color=BLUE)
        arrow(axes, (1.2, y), (1.6, y), GREY)
        arrow(axes, (2.35, y), (2.85, y), GREY)
        arrow(axes, (3.25, y), (3.7, y), GREY)
        axes.add_patch(plt.Rectangle((3.8, y - 0.24), 1.3, 0.16, fc="white", ec=GREY, lw=0.8))
        axes.add_patch(plt.Rectangle((3.8, y - 0.24), 1.3 * weight, 0.16, fc=RED, ec="none"))
        axes.text(4.45, y + 0.1, f"{weight:.3f}", ha="center", va="center", fontsize=13, color=RED)
        thick = {"arrowstyle": "-|>", "color": RED, "lw": 0.5 + 6 * weight, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=(6.75, 2.25 + 0.12 * (1 - i)), xytext=(6.15, y), arrowprops=thick)
    style = FancyBboxPatch((6.8, 2.0), 1.02, 0.5, boxstyle="round,pad=0.03", fc=PALE, ec=RED)
    axes.add_patch(style)
    axes.text(7.31, 2.25, "(3.86, 0.59)", ha="center", va="center", fontsize=11, color=RED)
    axes.text(7.31, 2.75, "result", ha="center", va="center", fontsize=11, color=GREY)
    axes.text(2.45, 0.55, "query of he: (2, -1)", ha="center", va="center", fontsize=12, color=BLUE)
    arrow(axes, (2.45, 0.72), (2.6, 1.35), BLUE)
    axes.text(2.45, 0.25, "times each key", ha="center", va="center", fontsize=10, color=GREY)
    axes.text(4.45, 0.55, "softmax", ha="center", va="center", fontsize=12, color=RED)
    axes.text(4.45, 0.25, "positive, with the sum 1", ha="center", va="center", fontsize=10, color=GREY)
    axes.text(6.75, 0.55, "weighted mean", ha="center", va="center", fontsize=12, color=RED)
    axes.text(6.75, 0.25, "of the values", ha="center", va="center", fontsize=10, color=GREY)
    return figure


def part(axes: Axes, x: float, y: float, text: str, width: float = 0.95) -> None:
    """Draw a part of a model, centred at (x, y)."""
    style = FancyBboxPatch((x - width / 2, y - 0.26), width, 0.52, boxstyle="round,pad=0.03", fc=PALE, ec=GREY)
    axes.add_patch(style)
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, color=GREY, linespacing=1.1)


def plus(axes: Axes, x: float, y: float) -> None:
    """Draw an addition."""
    axes.add_patch(plt.Circle((x, y), 0.13, fc="white", ec=RED, lw=1.3))
    axes.text(x, y - 0.01, "+", ha="center", va="center", fontsize=12, color=RED)


def gpt() -> Figure:
    """Draw the parts of the GPT of chapter 6 with their shapes, and the inside of a block."""
    figure, axes = canvas(8.0, 4.3)
    y = 3.2
    axes.text(0.35, y, "ids", ha="center", va="center", fontsize=12, color=BLUE)
    for x, text in ((1.45, "wte"), (3.9, "block"), (5.05, "block"), (6.2, "ln_f")):
        part(axes, x, y, text, width=0.75)
    part(axes, 2.6, 3.85, "wpe", width=0.75)
    plus(axes, 2.6, y)
    arrow(axes, (2.6, 3.58), (2.6, y + 0.14), GREY)
    part(axes, 7.3, y, "head\n(wte)", width=0.6)
    for start, end in ((0.55, 1.05), (1.85, 2.47), (2.73, 3.5), (4.3, 4.65), (5.45, 5.8), (6.6, 6.97), (7.62, 7.95)):
        arrow(axes, (start, y), (end, y), GREY)
    for x, above, text in ((0.8, 0.17, "(B, T)"), (2.18, -0.25, "(B, T, C)"), (3.12, 0.17, "(B, T, C)"),
                           (6.78, -0.42, "(B, T, C)"), (7.4, 0.42, "logits (B, T, V)")):  # fmt: skip
        axes.text(x, y + above, text, ha="center", va="center", fontsize=9, color=BLUE)

    style = FancyBboxPatch((0.15, 0.2), 7.7, 2.05, boxstyle="round,pad=0.03", fc="white", ec=GREY, ls="--")
    axes.add_patch(style)
    axes.plot([3.55, 0.2], [2.92, 2.3], color=GREY, lw=0.8, ls="--")
    axes.plot([4.25, 7.8], [2.92, 2.3], color=GREY, lw=0.8, ls="--")
    line, low = 1.75, 0.75
    axes.text(0.35, line, "x", ha="center", va="center", fontsize=12, color=BLUE)
    arrow(axes, (0.5, line), (3.6, line), RED)
    plus(axes, 3.75, line)
    arrow(axes, (3.9, line), (7.12, line), RED)
    plus(axes, 7.27, line)
    arrow(axes, (7.42, line), (7.8, line), RED)
    for left, right, names in ((0.7, 3.75, ("ln_1", "attention")), (4.1, 7.27, ("ln_2", "MLP"))):
        axes.plot([left, left], [line, low], color=GREY, lw=1.3)
        arrow(axes, (left, low), (left + 0.3, low), GREY)
        part(axes, left + 0.65, low, names[0], width=0.6)
        arrow(axes, (left + 1.0, low), (left + 1.35, low), GREY)
        part(axes, left + 1.9, low, names[1], width=1.0)
        axes.plot([left + 2.45, right], [low, low], color=GREY, lw=1.3)
        arrow(axes, (right, low), (right, line - 0.13), GREY)
    axes.text(2.6, 0.33, "between positions", ha="center", va="center", fontsize=9, color=BLUE)
    axes.text(6.0, 0.33, "C to 4C to C, each position alone", ha="center", va="center", fontsize=9, color=BLUE)
    axes.text(2.1, 2.0, "residual connection", ha="center", va="center", fontsize=9, color=RED)
    axes.text(5.6, 2.0, "all shapes are (B, T, C)", ha="center", va="center", fontsize=9, color=BLUE)
    return figure


def steps() -> Figure:
    """Draw the error of a slope against the step, as the first listing of chapter 8 measures it."""
    measured = run_listings("8-testing-gradients.md")
    error, two, four = measured["error_of"], measured["two_points"], measured["four_points"]
    sizes = 10.0 ** -np.linspace(0.5, 11, 85)
    figure, axes = plt.subplots(figsize=(8.0, 3.9), dpi=100, layout="constrained")
    curves = (
        ("two points, float32", GREY, sizes[sizes > 1e-6], two, np.float32),
        ("two points", BLUE, sizes, two, float),
        ("four points", RED, sizes, four, float),
    )
    for title, color, chosen, formula, dtype in curves:
        errors = [max(error(formula, dtype(0.7), dtype(h)), 1e-16) for h in chosen]
        axes.loglog(chosen, errors, color=color, marker=".", markersize=4, lw=0.8, label=title)
    axes.axhline(2.2e-16, color=GREY, ls="--", lw=1)
    axes.text(3e-8, 3.2e-16, "the complex step: about 2e-16", fontsize=10, color=GREY)
    axes.text(4e-11, 3e-3, "rounding error", fontsize=11, color=GREY)
    axes.text(2.5e-2, 3e-12, "truncation\nerror", fontsize=11, color=GREY)
    axes.set(xlabel="step h", ylabel="error of the slope", ylim=(5e-17, 2))
    axes.legend(loc="lower left", bbox_to_anchor=(0.01, 0.1), fontsize=10)
    return figure


def training() -> Figure:
    """Draw the losses, the learning rate and the norms of 600 steps of the run of chapter 7."""
    from gpt.train import train

    names = run_listings("7-training.md")
    more = {"train.steps": 600, "train.log_layers": 0, "train.sample_chars": 0, "train.out_dir": "more"}
    with contextlib.redirect_stdout(io.StringIO()):
        train(names["config"].replace(more))
    lines = [json.loads(line) for line in Path("more", "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    estimates = [line for line in lines if "val_loss" in line]
    at = [line["step"] for line in steps]
    sizes = {"height_ratios": [3, 1, 1]}
    figure, rows = plt.subplots(3, 1, figsize=(8.0, 5.2), dpi=90, layout="constrained", sharex=True, gridspec_kw=sizes)
    loss, rate, norm = rows
    loss.plot(at, [line["loss"] for line in steps], color=BLUE, label="loss, a mean of ten batches")
    loss.plot(
        [line["step"] for line in estimates], [line["val_loss"] for line in estimates], "o", color=RED, markersize=4,
        label="validation loss, estimated",
    )  # fmt: skip
    for height, text in ((names["guessing"], "guessing: ln 19"), (names["single"], "frequencies of characters"),
                         (names["paired"], "frequencies of pairs")):  # fmt: skip
        loss.axhline(height, color=GREY, lw=0.8, ls="--")
        loss.text(600, height - 0.05, text, ha="right", va="top", fontsize=9, color=GREY)
    loss.set(ylabel="loss", ylim=(0, 3.1))
    loss.legend(loc="center right", fontsize=9)
    rate.plot(at, [line["lr"] for line in steps], color=GREY)
    rate.annotate("warm-up", (22, 0.004), fontsize=9, color=GREY)
    rate.set(ylabel="learning rate", ylim=(0, 0.011))
    norm.plot(at, [line["grad_norm"] for line in steps], color=GREY)
    norm.axhline(1.0, color=RED, lw=0.8, ls="--")
    norm.text(600, 1.05, "clipped above 1", ha="right", va="bottom", fontsize=9, color=RED)
    norm.set(ylabel="gradient norm", xlabel="step")
    figure.align_ylabels(rows)
    return figure


PICTURES = {
    "graph.png": graph,
    "broadcasting.png": broadcasting,
    "engine.png": engine,
    "learning.png": learning,
    "attention.png": attention_weights,
    "gpt.png": gpt,
    "training.png": training,
    "steps.png": steps,
}


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    for name, draw in PICTURES.items():
        with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
            figure = draw()
        figure.savefig(folder / name, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "docs" / "learn")
