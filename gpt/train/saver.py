"""Write the checkpoints of a run in a thread, while training goes on."""

import _thread
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpt.checkpoint import Snapshot
from gpt.config import TrainConfig
from gpt.errors import UserError
from gpt.runs import LATEST, RunFolder
from gpt.runs.errors import run_folder_errors
from gpt.train.output import say

Arrays = dict[str, Any]
Take = Callable[[], Snapshot]

# Bytes of a checkpoint from which the thread copies it during the next step. A step that waits for a copy before it
# changes the weights is not one that `tl.compile` replays, which costs more than the copy of a small checkpoint.
LATE_COPY = 1 << 25
RETRY = 30.0  # Seconds between two attempts to write what could not be written.
PATIENCE = 60.0  # Seconds that a run waits for a drive that does not answer, with `on_save_error = "continue"`.


class Saver:
    """What writes the checkpoints of a run.

    `submit` copies the arrays, and a thread writes the copy. Large arrays are copied in the thread, too: the next step
    calls `wait_for_copy` before it changes them. Before a checkpoint is written, the lines of metrics up to its
    step are on the disk, so that no checkpoint is newer than its metrics. The next save waits until the thread is done.

    The copy takes the memory of one checkpoint. Further copies are kept only while a drive fails or does not answer:
    one of the best checkpoint and one of the latest.
    """

    waited: float
    """Seconds in which the run waited for a copy, or for the save before."""

    wrote: float
    """Seconds that writing took."""

    tell: Callable[[str], None]
    """What prints a line about a save."""

    def __init__(self, folder: RunFolder, options: TrainConfig) -> None:
        self.folder, self.options, self.tell = folder, options, say
        self.waited = self.wrote = 0.0
        self._lock = threading.Lock()  # for what follows
        self._pending: dict[str, Snapshot] = {}  # What is still to be written, by the name of the file, in this order.
        self._spare: list[Arrays] = []  # Copies in a snapshot that is written, for the next one.
        self._error: BaseException | None = None
        self._done = threading.Event()  # Whether the thread has ended.
        self._done.set()
        self._copied = threading.Event()  # Whether the arrays of the last snapshot may change.
        self._copied.set()
        self._working = False  # Whether the thread will look at `_pending` once more.
        self._failing = False  # Whether a failure was told that still holds.
        self._late = False  # Whether the thread has not answered for PATIENCE seconds.
        self._retry_at = 0.0

    # ---- what the run calls -------------------------------------------------------------------------------------

    def reserve(self, arrays: Mapping[str, Any]) -> None:
        """Make the memory of a snapshot with such arrays, in the thread, because that takes longer than the copy."""

        def make() -> None:
            with suppress(MemoryError):  # The first save raises it.
                made = {name: np.empty(array.shape, array.dtype) for name, array in arrays.items()}
                for array in made.values():
                    np.copyto(array, 0)  # The system gives memory when it is written to.
                self._spare.append(made)

        self._start(make)

    def submit(self, names: Sequence[str], take: Take) -> None:
        """Copy the state of the run, and write it to the files of these names, in this order, in the thread.

        Without `save_in_background` it is written before this returns, without a copy. An error is left to `poll`.

        take: returns a snapshot, whose arrays may share memory with the model. They may change when `is_copying` is
            false.
        """
        began = time.perf_counter()
        self._wait_for_the_last()
        if self.options.save_in_background:
            content = take()
            if content.nbytes() >= LATE_COPY and not self.is_writing():
                self._copied.clear()
            else:
                self._detach(content)
            self._add(names, content)
            self._begin()
        else:
            try:
                self.write_now(names, take)
            except UserError as error:
                content = take()
                content.detach({})  # because training may go on before it can be written
                self._add(names, content)
                self._error = error
        self.waited += time.perf_counter() - began

    def write_now(self, names: Sequence[str], take: Take) -> None:
        """Write the state of the run before returning. Raises the error of the write, a UserError."""
        self.wait()
        content = take()
        for name in names:
            self._write(name, content)

    def poll(self) -> None:
        """Tell of a save that failed or works again, or raise its error. Call it after each step.

        Where the option `on_save_error` is "stop", a save that fails is tried once more; then its error is raised, a
        UserError. With "continue" it is tried again after RETRY seconds. Other errors are always raised.
        """
        if self.is_writing():
            return
        self._late = False
        if self._handle_error():
            self._retry_at = time.monotonic() + RETRY
        elif self._pending and time.monotonic() >= self._retry_at:
            self._begin()

    def finish(self, stopped: Callable[[], bool]) -> None:
        """Wait until everything is written. Raises the errors of `poll`.

        With `on_save_error = "continue"` it tries again until that works. If `stopped` returns true, it raises the
        error instead.
        """
        self.wait()
        told = False
        while (error := self._handle_error()) or self._pending:
            if error is not None:
                if stopped():
                    raise error
                if not told:
                    self.tell(f"The run is at its end, and tries to save each {RETRY:g} s; Ctrl-C stops without it.")
                told, end = True, time.monotonic() + RETRY
                while time.monotonic() < end and not stopped():
                    time.sleep(0.05)
            self._begin()
            self.wait()

    def is_copying(self) -> bool:
        """Return whether the thread copies arrays that must not change."""
        return not self._copied.is_set()

    def wait_for_copy(self) -> None:
        """Wait until the arrays of the last snapshot may change."""
        if not self._copied.is_set():
            began = time.perf_counter()
            self._copied.wait()
            self.waited += time.perf_counter() - began

    def is_writing(self) -> bool:
        """Return whether the thread writes."""
        return self._working or not self._done.is_set()

    def wait(self) -> None:
        """Wait until the thread is done. A signal may interrupt it."""
        self._done.wait()

    def _wait_for_the_last(self) -> None:
        """Wait until the thread is done. With `on_save_error = "continue"`, wait for PATIENCE seconds at most."""
        if self._done.wait(0 if self._late else PATIENCE):
            return
        stays = self.options.on_save_error == "continue"
        if not self._late:
            self.tell(
                f"Warning: the drive of {str(self.folder.path)!r} has not finished a checkpoint for {PATIENCE:g} s. "
                f"Training {'goes on' if stays else 'waits for it'}."
            )
        self._late = True
        if not stays:
            self._done.wait()

    def _handle_error(self) -> BaseException | None:
        """Return the error of the thread, after telling of it. Raise it if the run stops. None if there is none."""
        with self._lock:
            error, self._error = self._error, None
            recovered = self._failing and error is None and not self._pending
        if recovered:
            self._failing = False
            self.tell("The checkpoint is written now.")
        if error is None:
            return None
        if not isinstance(error, UserError):
            raise error
        if self.options.on_save_error == "stop":
            self._run()  # once more, because some errors pass
            if self._error is not None:
                raise self._error
            self.tell(f"Warning: {error}. The second attempt has written it.")
            return None
        if not self._failing:
            self.tell(f"Warning: {error}. Training goes on, and tries again after {RETRY:g} s.")
        self._failing = True
        return error

    # ---- the thread ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Write what is pending, in the thread."""
        with self._lock:
            if self._working:
                return
            self._working = True
        self._start(self._run)

    def _start(self, work: Callable[[], None]) -> None:
        """Call a function in a new thread.

        The thread does not keep the process from ending, because a drive may never answer. `threading.Thread` is not
        used, because its start waits for the new thread, which may take several milliseconds.
        """

        done = self._done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        _thread.start_new_thread(run, ())

    def _detach(self, content: Snapshot) -> None:
        """Copy the arrays of a snapshot, into the memory of one that is written if there is one."""
        with self._lock:
            into = self._spare.pop() if self._spare else {}
        content.detach(into)

    def _run(self) -> None:
        """Write what is pending. Keep the first error, and what it left unwritten."""
        while True:
            with self._lock:
                if not self._pending:
                    self._working = False
                    return
                name, content = next(iter(self._pending.items()))
            began = time.perf_counter()
            try:
                if self.is_copying():
                    self._copy_pending()
                self._write(name, content)
            except BaseException as error:
                self._copied.set()
                with self._lock:
                    self._error, self._working = error, False
                return
            self.wrote += time.perf_counter() - began
            with self._lock:
                if self._pending.get(name) is content:  # Otherwise a later one came meanwhile.
                    del self._pending[name]
                self._recycle(content)

    def _copy_pending(self) -> None:
        """Copy what shares memory with the model, and let that change."""
        for content in list(self._pending.values()):
            if content.shared:
                self._detach(content)
        self._copied.set()

    def _write(self, name: str, content: Snapshot) -> None:
        """Write a checkpoint after the metrics up to its step. Raises UserError."""
        with run_folder_errors(self.folder.path):
            for record in self.folder.records:
                record.sync()
        # A checkpoint of a signal is the latest one, but none of those that stay, which do not depend on signals.
        regular = content.step % self.options.checkpoint_interval == 0 or content.step == self.options.steps
        if name != LATEST or self.options.keep == 1 or not regular:
            content.write(self.folder.path / name)
            return
        content.write(self.folder.path / f"checkpoint-{content.step}.safetensors")
        with run_folder_errors(self.folder.path):
            self.folder.keep_numbered(content.step, self.options.keep)

    def _add(self, names: Sequence[str], content: Snapshot) -> None:
        """Make a snapshot the one to be written to each of the files. It takes the place of an earlier one."""
        with self._lock:
            for name in names:
                old = self._pending.pop(name, None)
                self._pending[name] = content
                if old is not None and not self._working:
                    self._recycle(old)

    def _recycle(self, content: Snapshot) -> None:
        """Keep the copies of a snapshot for the next one, unless it is still to be written. Call it under the lock."""
        if all(content is not other for other in self._pending.values()) and not self._spare:
            self._spare.append(content.copies)
