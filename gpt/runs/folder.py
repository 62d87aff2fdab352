"""The folder of a run.

A run resumes from `checkpoint.safetensors`, the latest checkpoint. `best.safetensors` is the checkpoint with the lowest
estimated loss on the validation set. The folder also has `metrics.jsonl` and `loss.png`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from gpt.checkpoint import CheckpointError
from gpt.runs.errors import RunFolderError, run_folder_errors
from gpt.runs.metrics import Metrics

LATEST = "checkpoint.safetensors"
BEST = "best.safetensors"
METRICS = "metrics.jsonl"
CURVE = "loss.png"


class RunFolder:
    """The folder of a run: the names of its files, its metrics, and a lock against other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest, self.best, self.curve = path / LATEST, path / BEST, path / CURVE

    @cached_property
    def metrics(self) -> Metrics:
        """Open the metrics file, once, and create it if necessary. Raises RunFolderError."""
        return Metrics(self.path / METRICS)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager that keeps other processes from training in this folder.

        Creates the folder. Raises RunFolderError if another process trains in it or if it cannot be written.
        """
        from filelock import FileLock, Timeout

        with run_folder_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise RunFolderError(
                    f"another process is training in {str(self.path)!r}: wait until it is done, or write elsewhere "
                    "with --name or --out"
                ) from None
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not delete an open file.
                (self.path / ".lock").unlink()
            lock.release()

    def archive_previous_run(self) -> Path | None:
        """Move the files of an earlier run to a new folder inside this one; return it, or None without such files.

        Raises RunFolderError.
        """
        names = [name for name in (LATEST, BEST, METRICS, CURVE) if (self.path / name).exists()]
        if not names:
            return None
        number = 1
        while (archive := self.path / f"earlier-{number}").exists():
            number += 1
        with run_folder_errors(self.path):
            archive.mkdir()
            for name in names:
                (self.path / name).rename(archive / name)
        return archive


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a user's `path` means: a file, or the latest one in the folder of a run.

    Raises CheckpointError.
    """
    if path.is_file():
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    hint = "give a checkpoint or the folder of a run, such as runs/NAME"
    if path.is_dir():
        raise CheckpointError(f"there is no {LATEST} in the folder {str(path)!r}: {hint}")
    raise CheckpointError(f"there is no checkpoint {str(path)!r}: {hint}")


def newest_checkpoint(folder: Path) -> Path:
    """Return the most recent latest checkpoint of any run below `folder`. Raises CheckpointError if there is none."""
    found = [path for path in folder.rglob(LATEST) if path.is_file()]
    if not found:
        raise CheckpointError(
            f"there is no checkpoint below {str(folder)!r}: train a model first (python -m gpt train), "
            "or name a checkpoint"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))
