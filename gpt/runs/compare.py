"""Compare runs: what each one has reached, how long it took, whether it goes on, and which options differ."""

import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt.checkpoint import CheckpointError, load_info
from gpt.config import Config
from gpt.model.size import parameter_count
from gpt.runs.archive import PREFIX
from gpt.runs.folder import BEST, LATEST, METRICS, is_locked
from gpt.runs.metrics import FINAL, read

# The depth of folders below the named one in which runs are sought.
MAX_DEPTH = 4

# Options that say where a run is, or that follow from others.
NOT_COMPARED = ("name", "train.out_dir", "model.vocab_size", "train.device")


@dataclass(frozen=True)
class RunSummary:
    """What the files of a run say of it. A value that they do not say is None.

    state: "running" while a process trains in the folder. "finished" after the last step and the evaluation after it.
        "stopped" where the checkpoint holds all steps, so that the run can resume. "interrupted" where the process
        ended without saving its last steps.
    step, steps: finished and planned steps. tokens: that were trained on. seconds: spent in steps.
    val_loss, train_loss: the last estimates, in nats per token. best_loss: the lowest estimate, of step best_step.
    final_loss: that at the end of a finished run. bits_per_char: of the final loss, or of the last estimate.
    changed: the time of the last change, in seconds since 1970.
    options: by dotted name; none without a checkpoint that can be read. damage: why a file cannot be read, in words.
    """

    path: Path
    name: str
    state: str
    step: int
    steps: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    final_loss: float | None = None
    bits_per_char: float | None = None
    parameters: int | None = None
    seconds: float = 0.0
    tokens: int = 0
    changed: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    damage: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, in types that JSON has."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"path": str(self.path)}


def find_runs(folder: str | Path, *, archived: bool = False) -> tuple[list[RunSummary], list[str]]:
    """Return the runs in a folder and up to four folders below it, and a line about each folder that has none.

    A folder that is a run itself is the only one. archived: whether to take the earlier runs, which a new run of the
    same name has moved to `earlier-N`, too. Hidden folders are left out.
    """
    found: list[RunSummary] = []
    skipped: list[str] = []
    search(Path(folder), MAX_DEPTH, archived, found, skipped)
    return found, skipped


def search(folder: Path, depth: int, archived: bool, found: list[RunSummary], skipped: list[str]) -> None:
    """Append the runs in a folder to `found`, and to `skipped` why there is none."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) or is_linked(entry))
    except OSError as error:
        skipped.append(f"{folder}: {error.strerror}")
        return
    below = [folder / name for name in names if not name.startswith(".")]
    earlier = [path for path in below if path.name.startswith(PREFIX)]
    if is_run(folder):
        try:
            found.append(summarize(folder))
        except CheckpointError as error:
            skipped.append(str(error))
        below = earlier
    elif not below:
        skipped.append(f"{folder}: no {METRICS} and no {LATEST}, so it is not a run")
    if not archived:
        below = [path for path in below if path not in earlier]
    for path in below if depth else []:
        search(path, depth - 1, archived, found, skipped)


def is_linked(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a link to the folder of a run. Other links could lead in a circle."""
    return entry.is_symlink() and is_run(Path(entry.path))


def is_run(folder: Path) -> bool:
    """Return whether a folder has a file that only runs have."""
    return any((folder / name).is_file() for name in (METRICS, LATEST))


def summarize(folder: str | Path) -> RunSummary:
    """Return what the files of a run say of it.

    Raises CheckpointError if neither its metrics nor its checkpoint can be read.
    """
    folder = Path(folder)
    lines, damage = read_lines(folder / METRICS)
    saved, config = 0, None
    for name in (LATEST, BEST):
        if config is None and (folder / name).is_file():
            try:
                info = load_info(folder / name)
            except CheckpointError as error:
                damage = damage or str(error)
            else:
                config, saved = info.config, info.step
    if not lines and config is None:
        raise CheckpointError(damage or f"{folder}: {METRICS} has no line that can be read, and there is no {LATEST}")
    last = max([saved, *(line["step"] for line in lines)])
    estimates = [(loss, line["step"]) for line in lines if (loss := number(line, "val_loss")) is not None]
    best_loss, best_step = min(estimates, default=(None, None))
    final = latest(lines, FINAL)
    files = [path for name in (METRICS, LATEST, BEST) if (path := folder / name).is_file()]
    return RunSummary(
        path=folder,
        name=name_of(folder, config),
        state=state_of(folder, config, last, saved, final is not None),
        step=last,
        steps=None if config is None else config.train.steps,
        train_loss=latest(lines, "train_loss"),
        val_loss=latest(lines, "val_loss"),
        best_loss=best_loss,
        best_step=best_step,
        final_loss=final,
        bits_per_char=first_of(latest(lines, "final_val_bits_per_char"), latest(lines, "val_bits_per_char")),
        parameters=None if config is None else parameter_count(config.model),
        seconds=seconds_of(lines)[-1] if lines else 0.0,
        tokens=0 if config is None else last * tokens_per_step(config),
        changed=max(path.stat().st_mtime for path in files),
        options={} if config is None else config.flatten(),
        damage=damage,
    )


def name_of(folder: Path, config: Config | None) -> str:
    """Return what a run calls itself, or else its folder; for an earlier run that folder and the one above it."""
    if folder.name.startswith(PREFIX):  # Each run can have an earlier-1.
        return f"{folder.absolute().parent.name}/{folder.name}"
    return folder.name if config is None else config.name


def read_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of a metrics file, and why it cannot be read, in words."""
    try:
        lines = read(path)
        damaged = not lines and path.exists() and path.stat().st_size
    except OSError as error:
        return [], f"{path}: {error.strerror}"
    return lines, f"{path}: no line of it can be read" if damaged else ""


def state_of(folder: Path, config: Config | None, last: int, saved: int, evaluated: bool) -> str:
    """Return the state of a run: see `RunSummary`."""
    if is_locked(folder):
        return "running"
    if config is not None and last == saved:
        # A run with train.patience may be finished before its last step; its final evaluation tells.
        complete = evaluated or (saved >= config.train.steps and not config.data.val_fraction)
        return "finished" if complete else "stopped"
    return "finished" if evaluated else "interrupted"


def number(line: dict[str, Any], key: str) -> float | None:
    """Return a number of a line of metrics, None if it is missing, of another type, or not finite."""
    value: Any = line.get(key)
    # An integer of JSON can be larger than any float.
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def latest(lines: Sequence[dict[str, Any]], key: str) -> float | None:
    """Return the last number of a key, None if no line has one."""
    return next((value for line in reversed(lines) if (value := number(line, key)) is not None), None)


def first_of(*values: float | None) -> float | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)


def tokens_per_step(config: Config) -> int:
    """Return the number of tokens that a step trains on."""
    return config.train.grad_accum * config.train.batch_size * config.model.block_size


def seconds_of(lines: Iterable[dict[str, Any]]) -> list[float]:
    """Return for each line of metrics the seconds that were spent in steps until then."""
    result, before, total = [], 0, 0.0
    for line in lines:
        if (ms := number(line, "ms_per_step")) is not None:  # It is the mean since the line before.
            total += ms / 1000 * max(0, line["step"] - before)
            before = line["step"]
        result.append(total)
    return result


def tokens_of(lines: Iterable[dict[str, Any]]) -> list[float]:
    """Return for each line of metrics the number of tokens that the steps until then were trained on."""
    result, before, total = [], 0, 0.0
    for line in lines:
        ms, speed = number(line, "ms_per_step"), number(line, "tokens_per_second")
        if ms is not None and speed is not None and math.isfinite(tokens := ms / 1000 * speed):
            total += round(tokens) * max(0, line["step"] - before)
            before = line["step"]
        result.append(total)
    return result


def distinct_names(runs: Sequence[RunSummary]) -> list[str]:
    """Return the names of runs; for copies, which have the same one, as much of the path as tells them apart."""
    names = [run.name for run in runs]
    for length in range(2, max((len(run.path.parts) for run in runs), default=0) + 1):
        counts = Counter(names)
        tails = ["/".join(run.path.parts[-length:]) for run in runs]
        names = [tail if counts[name] > 1 else name for name, tail in zip(names, tails, strict=True)]
    return names


def differing_options(runs: Sequence[RunSummary]) -> list[str]:
    """Return the dotted names of the options that are not the same in all runs whose options are known."""
    known = [run.options for run in runs if run.options]
    names = dict.fromkeys(name for options in known for name in options if name not in NOT_COMPARED)
    return [name for name in names if any(options.get(name) != known[0].get(name) for options in known)]
