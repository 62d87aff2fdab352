"""The folder of a run.

A run resumes from `checkpoint.safetensors`, the latest checkpoint. `best.safetensors` is the checkpoint with the lowest
estimated loss on the validation set. `checkpoint-N.safetensors` is that of step N, if a run keeps several. The folder
also has `metrics.jsonl`, `layers.jsonl` and `loss.png`, and after
low-rank adaptation the folder `adapter`, and `merged.safetensors` if the user asked for it.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from gpt.checkpoint import adapter
from gpt.errors import extra
from gpt.runs.archive import archive_files, link_or_copy
from gpt.runs.errors import RunFolderError, run_folder_errors
from gpt.runs.metrics import Metrics
from tensorlite.serialization import atomic_write, flush_to_disk

LATEST = "checkpoint.safetensors"
BEST = "best.safetensors"
METRICS = "metrics.jsonl"
LAYERS = "layers.jsonl"
CURVE = "loss.png"
MERGED = "merged.safetensors"
LOCK = ".lock"
ADAPTER = tuple(f"{adapter.FOLDER}/{name}" for name in (adapter.CONFIG, adapter.WEIGHTS))

# The checkpoints of single steps that a run keeps with `train.keep`.
NUMBERED = re.compile(r"checkpoint-(0|[1-9]\d*)\.safetensors", re.ASCII)

# What a killed process leaves of its writes: names that `tensorlite.serialization` and `gpt.runs.archive` make.
LEFTOVER = re.compile(
    rf"\.(?:{'|'.join(map(re.escape, (LATEST, BEST, METRICS, LAYERS, CURVE, MERGED)))}|{NUMBERED.pattern}|earlier-\d+)"
    r"(?:\.[0-9a-z_]{8}\.tmp)+"
)


def is_locked(path: str | Path) -> bool:
    """Return whether a process trains in the folder of a run. A killed process leaves the file, but no lock."""
    file = Path(path) / LOCK
    if not file.is_file():
        return False
    with extra():
        from filelock import FileLock, Timeout

    try:
        with FileLock(file, timeout=0):
            return False
    except (OSError, Timeout):  # A folder that may not be written to has the lock of another user.
        return True


class RunFolder:
    """The folder of a run: the names of its files, its metrics, and a lock against other processes."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.latest, self.best, self.curve = path / LATEST, path / BEST, path / CURVE
        self.layers = path / LAYERS

    @cached_property
    def metrics(self) -> Metrics:
        """Open the metrics file, once, and create it if necessary. Raises RunFolderError."""
        return Metrics(self.path / METRICS)

    @cached_property
    def layer_records(self) -> Metrics:
        """Open the file of the records of layers, once, and create it if necessary. Raises RunFolderError."""
        return Metrics(self.layers)

    @property
    def records(self) -> list[Metrics]:
        """Return the files of metrics that are open: of the run, and of its layers."""
        return [vars(self)[name] for name in ("metrics", "layer_records") if name in vars(self)]

    def numbered(self) -> dict[int, Path]:
        """Return the checkpoints of single steps, by step."""
        found = {int(m[1]): path for path in self.path.iterdir() if (m := NUMBERED.fullmatch(path.name))}
        return dict(sorted(found.items()))

    def keep_numbered(self, step: int, count: int) -> None:
        """Make the checkpoint of a step the latest one, and remove all but the last `count` of the steps up to it.

        The latest one is a link to it, or a copy where links are not possible. A later step, of which a killed process
        left a checkpoint, is not removed, because the run comes there again. Raises OSError.
        """
        old = {number: path for number, path in self.numbered().items() if number <= step}
        # A run that is killed before the last line comes here again, so no file stays that is to be removed.
        for number in sorted(old)[:-count]:
            old[number].unlink(missing_ok=True)
        with atomic_write(self.latest) as temporary:
            temporary.unlink()
            link_or_copy(self.path / f"checkpoint-{step}.safetensors", temporary)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context manager that keeps other processes from training in this folder.

        Creates the folder, and removes what killed processes left of their writes. Afterwards it removes the folder if
        nothing was written to it. Raises RunFolderError if another process trains in it or if it cannot be written.
        """
        with extra():
            from filelock import FileLock, Timeout

        with run_folder_errors(self.path):
            made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            with run_folder_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                for folder in made:
                    flush_to_disk(folder.parent)  # because the names of new folders must survive a power cut, too
                # Wait a moment, because `is_locked` takes the lock of a killed process for an instant.
                lock = FileLock(self.path / LOCK, timeout=0.5)
                try:
                    lock.acquire()
                except Timeout:
                    raise RunFolderError(
                        f"another process is training in {str(self.path)!r}: wait until it is done, or write elsewhere "
                        "with --name or --out"
                    ) from None
            try:
                self.remove_leftovers()
                yield
            finally:
                with suppress(OSError):  # Windows does not delete an open file.
                    (self.path / LOCK).unlink()
                lock.release()
        finally:
            with suppress(OSError):  # A folder with files in it stays, and so do the folders above it.
                if made and (self.path / METRICS).is_file() and not (self.path / METRICS).stat().st_size:
                    (self.path / METRICS).unlink()
                for folder in made:
                    folder.rmdir()

    def remove_leftovers(self) -> None:
        """Remove the temporary files of writes that were killed. Call it under the lock."""
        for path in self.path.iterdir():
            if LEFTOVER.fullmatch(path.name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def archive_previous_run(self) -> Path | None:
        """Move the files of an earlier run to a new folder inside this one; return it, or None if there was no run.

        They move in one step, so that a process that is killed meanwhile leaves them together. Raises RunFolderError.
        """
        every = (LATEST, BEST, METRICS, LAYERS, CURVE, *ADAPTER, MERGED)
        names = [name for name in every if (self.path / name).exists()]
        if self.path.exists():
            names += [path.name for path in self.numbered().values()]
        if not names or (names == [METRICS] and not (self.path / METRICS).stat().st_size):
            return None
        with run_folder_errors(self.path):
            return archive_files(self.path, names)
