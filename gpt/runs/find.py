"""Find the checkpoint that a user means."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from gpt.checkpoint import CheckpointError, load_info
from gpt.runs.archive import PREFIX, last_archive
from gpt.runs.folder import BEST, LATEST, METRICS


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a user's `path` means: a file, or the latest one in the folder of a run.

    Raises CheckpointError.
    """
    path = Path(path)
    if path.is_file():
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    hint = "give a checkpoint or the folder of a run, such as runs/NAME"
    if (Path("runs") / path / LATEST).is_file():
        hint = f"did you mean {str(Path('runs') / path)!r}?"
    if path.is_dir():
        if (path / BEST).is_file():
            hint = f"{str(path / BEST)!r} is there, from an evaluation before the first save. Name that file"
        elif number := last_archive(path):
            hint = f"the run before it is in {str(path / f'{PREFIX}{number}')!r}"
        raise CheckpointError(f"there is no {LATEST} in the folder {str(path)!r}: {hint}")
    if path.exists():
        raise CheckpointError(f"{str(path)!r} is not a checkpoint, but a pipe or a device: {hint}")
    raise CheckpointError(f"there is no checkpoint {str(path)!r}: {hint}")


def newest_checkpoint(folder: str | Path) -> Path:
    """Return the most recent latest checkpoint of any run below `folder`. Raises CheckpointError if there is none."""
    (found,) = visible(Path(folder), LATEST)
    if not found:
        raise CheckpointError(
            f"there is no checkpoint below {str(folder)!r}: train a model first (python -m gpt train), "
            "or name a checkpoint"
        )
    return max(found, key=age)


class Better(NamedTuple):
    """The checkpoint with the lowest validation loss next to a run's latest one, which is of another step.

    path, step: of that checkpoint. latest_step: of the latest one. damage: the error of a file that cannot be read, in
    words; its step is then 0.
    """

    path: Path
    step: int
    latest_step: int
    damage: str = ""


def better_checkpoint(latest: Path) -> Better | None:
    """Return the best checkpoint next to a run's latest one, None if there is no other. Raises CheckpointError.

    A best checkpoint that is damaged raises nothing, because the latest one is still of use.
    """
    best = latest.with_name(BEST)
    if latest.name != LATEST or not best.is_file():
        return None
    last = load_info(latest).step
    try:
        step = load_info(best).step
    except CheckpointError as error:
        return Better(best, 0, last, str(error))
    return Better(best, step, last) if step != last else None


def describe_choice(folder: Path, chosen: Path) -> str:
    """Return why `newest_checkpoint(folder)` chose a checkpoint, in words.

    They give the time of the checkpoint, the number of runs, and a run that began later and has no checkpoint yet.
    """
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(chosen.stat().st_mtime))
    saved_runs, started = visible(folder, LATEST, METRICS)
    others = len(saved_runs) - 1
    text = f"saved {saved}" + (f", the newest of {others + 1} below {folder}/" if others else "")
    unsaved = [path.parent for path in started if not (path.parent / LATEST).exists()]
    later = [run for run in unsaved if (run / METRICS).stat().st_mtime_ns >= chosen.stat().st_mtime_ns]
    if later:
        newest = max(later, key=lambda run: age(run / METRICS))
        text += f"; {newest} is newer, but has no checkpoint yet"
        if chosen.parent.parent == newest:
            text += ", so this is the run before it"
    return text


def visible(folder: Path, *names: str) -> list[list[Path]]:
    """Return the files of each name below a folder, except those in hidden folders, which are still being written."""
    found: list[list[Path]] = [[] for _ in names]
    for place, folders, _ in os.walk(folder):
        folders[:] = [below for below in folders if not below.startswith(".")]
        for paths, name in zip(found, names):
            if (path := Path(place, name)).is_file():
                paths.append(path)
    return found


def age(path: Path) -> tuple[int, str]:
    """Return the time of the last change, and the path to decide between equal times."""
    return path.stat().st_mtime_ns, str(path)
