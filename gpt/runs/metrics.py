"""The measurements of a run, as one JSON object per line.

A line of training has step, loss, grad_norm, lr, ms_per_step and tokens_per_second. Its loss is the mean over the steps
since the previous line, in nats per token. Its grad_norm is that of the last step, before clipping. A line of
evaluation, which is an estimate on random batches, has step, train_loss, val_loss and val_bits_per_char. Without
a validation set it has step and train_loss. The last line, on the whole validation set, has step, final_val_loss and
final_val_bits_per_char, and final_val_tokens if it is on a part of that set. A run of finetune begins with a line of
step 0 and initial_val_loss, which is on the same tokens as the last line. With `train.patience` a line of evaluation
also has evaluations_without_improvement. A spike (`train.on_spike`) has a line with step, spike (what was done),
spike_loss, spike_grad_norm, their limits and lr_scale; a value that is not finite is null.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

from gpt.runs.errors import folder_error, run_folder_errors
from tensorlite import serialization
from tensorlite.serialization import flush_to_disk

FINAL = "final_val_loss"


class Metrics:
    """A metrics file to append to. Each line is written at once, so that a crash of the process loses none.

    A line that cannot be written is kept, and written together with the next one.
    """

    postpone_errors: bool
    """Whether `write` raises no error and leaves it to the next `write`, or to `sync`. False at first."""

    def __init__(self, path: Path) -> None:
        """Open `path`, and create it and its folder if necessary. Raises RunFolderError."""
        self.path = path
        self.postpone_errors = False
        self._lock = threading.Lock()  # because `sync` may run in another thread
        self._pending: list[str] = []  # Lines that are not in the file yet.
        self._whole: int | None = None  # The size of the file before a write that failed halfway.
        self._synced = True  # Whether every line of this process is on the disk.
        with run_folder_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a", encoding="utf-8").close()  # Report a folder that cannot be written before training begins.

    def write(self, **values: Any) -> None:
        """Append a line. Raises RunFolderError."""
        with self._lock:
            self._pending.append(as_line(values))
            self._synced = False
            try:
                self._append()
            except OSError as error:
                if not self.postpone_errors:
                    raise folder_error(self.path.parent, error) from error

    def sync(self) -> None:
        """Wait until every line is on the disk, so that a power cut keeps it. Raises OSError."""
        with self._lock:
            self._append()
            synced, self._synced = self._synced, True
        if not synced:
            try:
                flush_to_disk(self.path)
                flush_to_disk(self.path.parent)
            except OSError:
                self._synced = False
                raise

    def _append(self) -> None:
        """Append the lines that are not in the file yet: all of them, or none after an OSError."""
        if not self._pending:
            return
        with self.path.open("ab", buffering=0) as file:
            if self._whole is not None:  # Remove a part of a line, which a full disk left.
                file.truncate(self._whole)
            self._whole = os.fstat(file.fileno()).st_size
            data = memoryview("".join(self._pending).encode())
            while data:
                data = data[file.write(data) :]
        self._pending, self._whole = [], None

    def truncate_after(self, step: int, *, evaluated: bool = True) -> None:
        """Remove the lines after `step`, and the final line of a finished run. Raises RunFolderError.

        evaluated: False also removes the evaluation of `step`, because the run is going to do it again.
        """
        kept = [line for line in read(self.path) if line["step"] <= step and FINAL not in line]
        if not evaluated:
            kept = [line for line in kept if line["step"] < step or "train_loss" not in line]
        with run_folder_errors(self.path.parent), serialization.atomic_write(self.path) as temporary:
            temporary.write_text("".join(map(as_line, kept)), encoding="utf-8")


def as_line(values: dict[str, Any]) -> str:
    """Return values as a line of a metrics file."""
    return json.dumps(values) + "\n"


def read(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, none if there is no file; lines that a crash truncated are left out.

    So are lines without a step that a run can have, from 0 to 2^63 - 1, of which readers make floats.
    """
    path, result = Path(path), []
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and type(step := values.get("step")) is int and 0 <= step < 2**63:
            result.append(values)
    return result
