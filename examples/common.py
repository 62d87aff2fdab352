"""What the experiments among the examples share: their options, the training loop, and the table of their results.

An experiment is an example with a measured result, next to a baseline. Each has these options:

    python examples/NAME.py                    the whole experiment, some minutes on two cores
    python examples/NAME.py --quick            a small one, in seconds; its results say little
    python examples/NAME.py --results FILE     write the results as JSON, too
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

import tensorlite as tl
from gpt.config import DataConfig, OptimConfig
from gpt.data import load_text
from gpt.evaluate import batch_of, mean_loss
from gpt.model import GPT
from gpt.train import configure_optimizer, configure_schedule
from tensorlite import nn, optim

T = TypeVar("T")


class Experiment:
    """An experiment: its options, and the results that it has measured so far.

    description: the docstring of the example, for `--help`.
    """

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--quick", action="store_true", help="a small experiment, in seconds")
        parser.add_argument("--results", type=Path, metavar="FILE", help="write the results to a JSON file")
        arguments = parser.parse_args()
        self.quick: bool = arguments.quick
        self.file: Path | None = arguments.results
        self.results: list[dict[str, object]] = []
        self.began = time.perf_counter()

    def pick(self, whole: T, quick: T) -> T:
        """Return the value for the whole experiment, or that for the quick one."""
        return quick if self.quick else whole

    def result(
        self, name: str, value: float, unit: str = "", baseline: float | None = None, baseline_name: str = ""
    ) -> None:
        """Add a result, next to that of a baseline if there is one."""
        row = {"name": name, "value": float(value), "unit": unit}
        if baseline is not None:
            row |= {"baseline": float(baseline), "baseline_name": baseline_name}
        self.results.append(row)

    def finish(self) -> None:
        """Print the results as a table, and write them to the file of `--results`."""
        seconds = time.perf_counter() - self.began
        rows = [("result", "value", "baseline", "")]
        for row in self.results:
            value = f"{number(row['value'])} {row['unit']}".strip()
            baseline = number(row["baseline"]) if "baseline" in row else ""
            rows.append((str(row["name"]), value, baseline, str(row.get("baseline_name", ""))))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        print()
        for cells in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        print(f"\n{seconds:.0f} s{', a small experiment' if self.quick else ''}")
        if self.file is not None:
            done = {"quick": self.quick, "seconds": round(seconds, 1), "results": self.results}
            self.file.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_picture(name: str, draw: Callable[[Path], object]) -> None:
    """Write a picture into the current folder by `draw`, and print its path, or how to get matplotlib."""
    path = Path(name).resolve()
    try:
        draw(path)
    except ImportError:
        print("\nTo get a picture, install matplotlib: pip install 'tensorlite[plot]'")
    else:
        print(f"\nwrote {path}")


def number(value: object) -> str:
    """Return a number as text: whole numbers as they are, others with four digits."""
    assert isinstance(value, float)
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def train(
    model: nn.Module,
    loss: Callable[..., tl.Tensor],
    batches: Callable[[], Iterable[np.ndarray]],
    steps: int,
    lr: float = 1e-3,
    *,
    weight_decay: float = 0.1,
    parameters: Iterable[tl.Tensor] | None = None,
    options: OptimConfig | None = None,
    report: Callable[[int, float], object] | None = None,
) -> list[float]:
    """Train a model, print its loss ten times, and return the loss of each step.

    AdamW with gradients clipped to a norm of 1. The learning rate grows to `lr` in the first tenth of the steps (100 at
    most), and then falls as a cosine to a tenth of it.

    loss: takes the arrays of a batch as tensors, and returns the loss, 0-d.
    batches: draws the arrays of a batch, of the same shapes each time, so that `tl.compile` can replay the step.
    parameters: those to train; all by default.
    options: those of an optimizer and a schedule of `gpt`, instead of AdamW, for all parameters of a GPT.
    report: called ten times with the number of steps and the mean loss of the last few, instead of printing them.
    """
    trained = [p for p in model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    if options is not None:
        assert isinstance(model, GPT)
        assert parameters is None
        optimizer = configure_optimizer(model, options)
        schedule = configure_schedule(optimizer, options, steps)
    else:
        optimizer = optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
        schedule = optim.lr_scheduler.LambdaLR(optimizer, partial(cosine, steps=steps))
    clip = 1.0 if options is None else options.grad_clip

    def step(*batch: tl.Tensor) -> tl.Tensor:
        value = loss(*batch)
        value.backward()
        if clip:
            nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()
        return value

    if steps >= 100:  # The recording costs two slow steps.
        step = tl.compile(step)
    model.train()
    losses = []
    began = time.perf_counter()
    for i in range(1, steps + 1):
        losses.append(step(*(tl.tensor(array) for array in batches())).item())
        schedule.step()
        if i % max(1, steps // 10) == 0 or i == steps:
            mean = float(np.mean(losses[-max(1, steps // 20) :]))
            if report is None:
                print(f"step {i:5}   loss {mean:.4f}   {time.perf_counter() - began:.0f} s", flush=True)
            else:
                report(i, mean)
    model.eval()
    return losses


def cosine(step: int, steps: int) -> float:
    """Return the learning rate of a step as a multiple of the peak: up for a tenth, then down to a tenth of it."""
    warmup = min(100, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def windows(
    ids: np.ndarray, length: int, batch_size: int, rng: np.random.Generator
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return a function that draws windows (B, T) from random places of a text, and the next token of each position."""
    places = np.arange(length + 1)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        rows = ids[rng.integers(0, len(ids) - length, size=(batch_size, 1)) + places]
        return rows[:, :-1], rows[:, 1:]

    return draw


def text_loss(model: GPT, ids: np.ndarray) -> float:
    """Return the mean loss of a GPT on a text, in nats per token, in windows of block_size that do not overlap.

    The last tokens, which do not fill a window, do not count.
    """
    T = model.config.block_size
    count = (len(ids) - 1) // T
    x, y = ids[: count * T].reshape(count, T), ids[1 : count * T + 1].reshape(count, T)
    size = batch_of(model)
    return mean_loss(model, ((x[i : i + size], y[i : i + size]) for i in range(0, count, size)))


def shakespeare(val_fraction: float = 0.1) -> tuple[str, str]:
    """Return tiny Shakespeare for training, and its end for validation. It is downloaded once (1.1 MB)."""
    text = load_text(DataConfig(dataset="tinyshakespeare"))
    split = int(len(text) * (1 - val_fraction))
    return text[:split], text[split:]


def pages(val_fraction: float = 0.1) -> tuple[str, str]:
    """Return 60,000 ASCII characters of the pages in docs/, for training and for validation. They need no download."""
    folder = Path(__file__).resolve().parents[1] / "docs"
    text = "\n".join(path.read_text("utf-8") for path in sorted(folder.glob("*.md")))
    text = text.encode("ascii", "ignore").decode()[:60_000]
    split = int(len(text) * (1 - val_fraction))
    return text[:split], text[split:]
