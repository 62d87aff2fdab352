"""The loss curve of a run as a picture. Needs matplotlib (the extra `plot`)."""

from pathlib import Path
from typing import Any

from gpt.runs.metrics import FINAL


def loss_curve(metrics: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draw the losses in `metrics` against the steps and write a PNG. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")  # pyplot would need a display, or keep the figure in memory.
    axes = figure.add_subplot()

    def curve(key: str, label: str, **style: Any) -> None:
        if points := [(line["step"], line[key]) for line in metrics if type(line.get(key)) in (int, float)]:
            axes.plot(*zip(*points), label=label, **style)

    curve("loss", "training batches", color="tab:blue", alpha=0.35, linewidth=1)
    curve("train_loss", "training set (estimate)", color="tab:blue", marker="o", markersize=3)
    curve("val_loss", "validation set (estimate)", color="tab:orange", marker="o", markersize=3)
    curve(FINAL, "validation set (whole)", color="tab:red", marker="*", markersize=12, linestyle="none")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, format="png", dpi=120)
