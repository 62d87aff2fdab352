"""Curves of training: the losses of several runs together, and the gradients and activations of one, by layer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.inspect.figures import PictureError, drawable, new_figure, set_text
from gpt.runs import LAYERS, METRICS, RunSummary, read, summarize
from gpt.runs.compare import distinct_names, number, seconds_of, tokens_of
from gpt.runs.metrics import FINAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Lines = list[dict[str, Any]]

# What the horizontal axis of curves can be: its label, and its numbers for the lines of a metrics file.
AXES: dict[str, tuple[str, Callable[[Lines], list[float]]]] = {
    "steps": ("step", lambda lines: [float(line["step"]) for line in lines]),
    "time": ("training time (seconds)", seconds_of),
    "tokens": ("tokens", tokens_of),
}


def plot_runs(runs: Sequence[RunSummary | str | Path] | RunSummary | str | Path, x: str = "steps") -> "Figure":
    """Return a figure with the losses of several runs: each has a colour, in which a star is the loss at the end.

    runs: those that `find_runs` or `summarize` gave, or their folders, or one of these. x: "steps", "time" (training
    time in seconds) or "tokens". A line is the estimated loss on the validation set, or on the training set if there is
    no other. The pale line is the loss of the training batches.

    Raises PictureError for runs without any loss and for another x, CheckpointError for a folder that is not a run.
    """
    if x not in AXES:
        raise PictureError(f"plot_runs: expected x to be one of {', '.join(AXES)}, got {x!r:.80}")
    if isinstance(runs, str | Path | RunSummary):
        runs = [runs]
    chosen = [run if isinstance(run, RunSummary) else summarize(run) for run in runs]
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    handles, labels = [], []
    words, places_of = AXES[x]
    for index, (run, name) in enumerate(zip(chosen, distinct_names(chosen), strict=True)):
        lines = read(run.path / METRICS)
        places, color = places_of(lines), f"C{index % 10}"

        def curve(key: str, lines: Lines = lines, places: list[float] = places, **style: Any) -> Any:
            points = [(at, value) for at, line in zip(places, lines) if (value := number(line, key)) is not None]
            return axes.plot(*zip(*points), **style)[0] if points else None

        pale = curve("loss", color=color, alpha=0.25, linewidth=1)
        style = "-" if index < 10 else "--"
        line = curve("val_loss", color=color, marker="o", markersize=3, linestyle=style)
        line = line or curve("train_loss", color=color, marker="o", markersize=3, linestyle=":")
        star = curve(FINAL, color=color, marker="*", markersize=11, linestyle="none")
        if handle := line or pale or star:
            handles.append(handle)
            labels.append(drawable(f"{name}: {loss_words(run)}"))
    if not handles:
        names = ", ".join(run.name for run in chosen[:5]) or "none was given"
        raise PictureError(f"plot_runs: expected a run with a loss in its {METRICS}, got none ({names})")
    axes.set(xlabel=words, ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
    for text in legend.get_texts():
        set_text(text)
    return figure


def loss_words(run: RunSummary) -> str:
    """Return the best known loss of a run in words."""
    known = {"at the end": run.final_loss, "lowest": run.best_loss, "on the training set": run.train_loss}
    return next((f"{loss:.4f} {words}" for words, loss in known.items() if loss is not None), "no evaluation")


# The panels of `plot_gradients`: a key of `layers.jsonl`, its label, and whether the scale is logarithmic.
PANELS = [
    ("gradient", "norm of the gradient, before clipping", True),
    ("update", "update, as a share of the weights", True),
    ("std", "activations: standard deviation", False),
    ("mean", "activations: mean", False),
]
OTHERS = {"wte": "tab:orange", "embedding": "tab:orange", "wpe": "tab:red", "ln_f": "tab:pink", "lm_head": "tab:brown"}
MOST_NAMES = 24  # names in a legend; of more layers only some are named


def plot_gradients(run: RunSummary | str | Path) -> "Figure":
    """Return a figure of the gradients, the updates and the activations of a run by layer, over the steps.

    It has four axes: the norm of the gradient, the norm of the update as a share of that of the weights, and the
    standard deviation and the mean of the residual stream before the first block (embedding) and after each. The colour
    of a block is lighter the later it comes; attention is drawn solid, the MLP dashed, and other modules dotted.

    run: what `summarize` gave, or the folder. Raises PictureError if the run has not recorded them, `train.log_layers`,
    or if its file has no number.
    """
    from matplotlib import colormaps

    path = run.path if isinstance(run, RunSummary) else Path(run)
    lines = read(path / LAYERS)
    if not lines:
        raise PictureError(
            f"{str(path)!r} has no {LAYERS}: nothing was recorded by layer, because --log-layers was 0 or the run is "
            "of an earlier version. Train with --log-layers 50"
        )
    figure = new_figure(13, 8)
    grid: Any = figure.subplots(2, 2, sharex=True)
    blocks = 1 + max([-1, *(block_of(name) for line in lines for key, _, _ in PANELS for name in values(line, key))])
    for (key, words, logarithmic), axes in zip(PANELS, grid.flat, strict=True):
        names = list(dict.fromkeys(name for line in lines for name in values(line, key)))
        for name in names:
            points = [(line["step"], y) for line in lines if (y := number(values(line, key), name)) is not None]
            points = [point for point in points if point[1] > 0 or not logarithmic]
            block = block_of(name)
            color = OTHERS.get(name, "0.5") if block < 0 else colormaps["viridis"](0.9 * block / max(1, blocks - 1))
            style = ":" if block < 0 else "--" if name.endswith(".mlp") else "-"
            marker = "o" if len(lines) < 3 else None
            if points:
                axes.plot(*zip(*points), label=name, color=color, linestyle=style, linewidth=1.2, marker=marker)
        if logarithmic and axes.lines:
            axes.set_yscale("log")
        axes.set_ylabel(words)
        axes.grid(alpha=0.3)
    if not any(axes.lines for axes in grid.flat):
        raise PictureError(f"{str(path / LAYERS)!r} has no number that can be drawn. Train again")
    for axes in grid[1]:
        axes.set_xlabel("step")
    for axes, place in ((grid[0, 1], "upper left"), (grid[1, 1], "upper left")):
        lines_of = axes.lines[:: -(-len(axes.lines) // MOST_NAMES) or 1]
        legend = axes.legend(lines_of, [drawable(line.get_label()) for line in lines_of], fontsize=7, loc=place,
                             bbox_to_anchor=(1.01, 1.0))  # fmt: skip
        for text in legend.get_texts():
            set_text(text)
    return figure


def values(line: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the values of a key of a recorded line by the names of modules, none if the line is damaged."""
    found = line.get(key)
    return found if isinstance(found, dict) else {}


def block_of(name: str) -> int:
    """Return the number of the block that a module is in, -1 for none."""
    parts = name.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[0] == "h" and parts[1].isdecimal() else -1
