"""Write runs in forms that other programs read: CSV tables, and the event files of TensorBoard."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt.runs.compare import RunSummary, distinct_names, number, seconds_of
from gpt.runs.folder import METRICS
from gpt.runs.metrics import read
from tensorlite import serialization

# How the tables of `write_table` and `write_metrics` begin: with the name of the first column.
TABLE = re.compile(rb"(path|run)[,\r\n]")

# Event files of ours have this at the end of their names. Writing a run again replaces them, and no others.
SUFFIX = ".tensorlite"

# What TensorBoard calls the values of a line of metrics: the part before the slash is the group of a curve.
TAGS = {
    "loss": "loss/training_batches",
    "train_loss": "loss/training_set",
    "val_loss": "loss/validation_set",
    "final_val_loss": "loss/validation_set_whole",
    "initial_val_loss": "loss/before_the_first_step",
    "val_bits_per_char": "bits_per_character/validation_set",
    "final_val_bits_per_char": "bits_per_character/validation_set_whole",
    "grad_norm": "optimizer/gradient_norm",
    "lr": "optimizer/learning_rate",
    "ms_per_step": "speed/milliseconds_per_step",
    "tokens_per_second": "speed/tokens_per_second",
}


def write_table(runs: Sequence[RunSummary], path: Path) -> None:
    """Write a CSV file with a line for each run: the fields of `RunSummary`, then a column for each option."""
    rows = [run.to_dict() | {key: value for key, value in run.options.items() if key != "name"} for run in runs]
    for row in rows:
        del row["options"]
    write_csv(rows, path)


def write_metrics(runs: Sequence[RunSummary], path: Path) -> None:
    """Write a CSV file with each line of metrics of each run, after the path of the run."""
    write_csv([{"run": str(run.path), **line} for run in runs for line in read(run.path / METRICS)], path)


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a CSV file with a column for each key of any row; a cell is empty where a row has no value."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with serialization.atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_tensorboard(runs: Sequence[RunSummary], folder: Path) -> list[Path]:
    """Write the metrics of runs as event files of TensorBoard, each run to a folder of its own, and return these.

    The time of a line is that of the last change of the run, less the training time after the line. The event files
    that an earlier call has written for a run are replaced. Raises ModuleNotFoundError without tensorboardX.
    """
    from tensorboardX import SummaryWriter

    written: list[Path] = []
    for name, run in unique_names(runs).items():
        target = folder / name
        for old in target.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink()
        lines = read(run.path / METRICS)
        seconds = seconds_of(lines)
        with SummaryWriter(str(target), filename_suffix=SUFFIX) as writer:
            for line, until in zip(lines, seconds, strict=True):
                for key, tag in TAGS.items():
                    if (value := number(line, key)) is not None:
                        writer.add_scalar(tag, value, line["step"], walltime=run.changed - (seconds[-1] - until))
        written.append(target)
    return written


def unique_names(runs: Sequence[RunSummary]) -> dict[str, RunSummary]:
    """Return the runs by names of folders that differ."""
    result: dict[str, RunSummary] = {}
    for run, name in zip(runs, distinct_names(runs), strict=True):
        name = plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
        count = 1
        while name in result:
            count += 1
            name = f"{plain}-{count}"
        result[name] = run
    return result
