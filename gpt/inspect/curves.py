"""Curves of training: the losses of several runs together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.inspect.figures import PictureError, drawable, new_figure, set_text
from gpt.runs import METRICS, RunSummary, read, summarize
from gpt.runs.compare import number, seconds_of, tokens_of
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


def plot_runs(runs: Sequence[RunSummary | str | Path], x: str = "steps") -> "Figure":
    """Return a figure with the losses of several runs: each has a colour, in which a star is the loss at the end.

    runs: those that `find_runs` or `summarize` gave, or their folders. x: "steps", "time" (training time in seconds)
    or "tokens". A line is the estimated loss on the validation set, or on the training set if there is no other. The
    pale line is the loss of the training batches.

    Raises PictureError for runs without any loss and for another x, CheckpointError for a folder that is no run.
    """
    if x not in AXES:
        raise PictureError(f"plot_runs: expected x to be one of {', '.join(AXES)}, got {x!r:.80}")
    chosen = [run if isinstance(run, RunSummary) else summarize(run) for run in runs]
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot()
    handles, labels = [], []
    words, places_of = AXES[x]
    for index, run in enumerate(chosen):
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
            labels.append(drawable(f"{run.name}: {loss_words(run)}"))
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
