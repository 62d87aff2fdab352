"""Host synchronisation: lists, or forbids, the places where a program would wait for a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from ...autograd.anomaly_mode import call_site

__all__ = ["SYNCS", "Sync", "SyncError", "SyncLog", "allow_syncs", "count_syncs", "forbid_syncs", "record_sync"]

SYNCS = ("bool", "complex", "float", "index", "int", "item", "mask", "nonzero", "to_numpy", "tolist")
"""The kinds of host synchronisation: ``bool(x)`` and other conversions, ``x.item()``, ``x.tolist()``, the transfer to
NumPy (a tensor's ``cpu()``), and two ops with results of a size that only the device knows: indexing by a mask, and
``nonzero``."""


class Sync(NamedTuple):
    """A host synchronisation. what: its kind (one of SYNCS). where: the line of code that called tensorlite."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


class SyncError(RuntimeError):
    """An error that is raised when a value is read on the host inside :func:`forbid_syncs`."""


class SyncLog(list[Sync]):
    """A list of synchronisations in order. ``print(log)`` prints one line for each."""

    def __init__(self, allowed: Collection[str] = SYNCS) -> None:
        super().__init__()
        self._allowed = frozenset(allowed)

    @property
    def kinds(self) -> list[str]:
        """Return the kind of each synchronisation."""
        return [sync.what for sync in self]

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no syncs"


_logs: list[SyncLog] = []
_allowing = 0


def record_sync(what: str) -> None:
    """Add a synchronisation to all open logs. Raise SyncError if one of them forbids it."""
    if not _logs:
        return
    sync = Sync(what, call_site())
    for log in _logs:
        log.append(sync)
    if not _allowing and not all(what in log._allowed for log in _logs):
        raise SyncError(
            f"{what}: a value is read on the host inside forbid_syncs(), which waits for the GPU\n"
            f"  {sync.where}\n"
            f"Keep the value on the device and read it after the loop, or put the line into `with allow_syncs():`"
        )


@contextmanager
def _logged(log: SyncLog) -> Iterator[SyncLog]:
    _logs.append(log)
    try:
        yield log
    finally:
        _logs[:] = [other for other in _logs if other is not log]


def count_syncs() -> AbstractContextManager[SyncLog]:
    """Return a context manager that lists the synchronisations in its block, in all threads.

    ``with count_syncs() as log:`` gives a SyncLog: use ``len(log)`` or ``log.kinds``.
    """
    return _logged(SyncLog())


def forbid_syncs(allow: Collection[str] = ()) -> AbstractContextManager[SyncLog]:
    """Return a context manager like :func:`count_syncs` in which a synchronisation raises SyncError with its line.

    allow: kinds of SYNCS that are listed but raise nothing. Raises ValueError for an unknown kind.
    """
    if unknown := sorted({allow} if isinstance(allow, str) else set(allow) - set(SYNCS)):
        raise ValueError(f"forbid_syncs: allow={allow!r}: expected some of {', '.join(SYNCS)}, got {unknown}")
    return _logged(SyncLog(allow))


@contextmanager
def allow_syncs() -> Iterator[None]:
    """Context manager that allows synchronisations inside :func:`forbid_syncs`. They are listed, but raise nothing."""
    global _allowing
    _allowing += 1
    try:
        yield
    finally:
        _allowing -= 1
