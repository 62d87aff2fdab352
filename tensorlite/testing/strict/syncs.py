"""The moments at which a program would wait for a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from ...autograd.anomaly_mode import call_site

__all__ = ["SYNCS", "Sync", "SyncError", "SyncLog", "allow_syncs", "count_syncs", "forbid_syncs", "record_sync"]

SYNCS = ("bool", "complex", "float", "index", "int", "item", "mask", "nonzero", "to_numpy", "tolist")
"""The kinds of host synchronisation: ``bool(x)`` and its like, ``x.item()``, ``x.tolist()``, the way to NumPy (a
tensor's ``cpu()``), and results whose size only the device knows, of indexing by a mask and looking for nonzeros."""


class Sync(NamedTuple):
    """A moment at which a GPU's program would have to wait: ``what`` it was (one of SYNCS), and at which line of the
    code that called tensorlite."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


class SyncError(RuntimeError):
    """A value was read on the host inside :func:`forbid_syncs`."""


class SyncLog(list[Sync]):
    """What has synchronised, in order. ``print(log)`` is a line each."""

    def __init__(self, allowed: Collection[str] = SYNCS) -> None:
        super().__init__()
        self._allowed = frozenset(allowed)

    @property
    def kinds(self) -> list[str]:
        """``what`` of each."""
        return [sync.what for sync in self]

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no syncs"


_logs: list[SyncLog] = []
_allowing = 0


def record_sync(what: str) -> None:
    """Note a sync in every open log. Raises SyncError if one of them forbids it."""
    if not _logs:
        return
    sync = Sync(what, call_site())
    for log in _logs:
        log.append(sync)
    if not _allowing and not all(what in log._allowed for log in _logs):
        raise SyncError(
            f"{what}: a value is read on the host inside forbid_syncs(), so a GPU would have to be waited for\n"
            f"  {sync.where}\n"
            f"keep it on the device and read it after the loop, or put the line into `with allow_syncs():`"
        )


@contextmanager
def _logged(log: SyncLog) -> Iterator[SyncLog]:
    _logs.append(log)
    try:
        yield log
    finally:
        _logs[:] = [other for other in _logs if other is not log]


def count_syncs() -> AbstractContextManager[SyncLog]:
    """``with count_syncs() as log:`` lists each sync of the block, in any thread: ``len(log)``, ``log.kinds``."""
    return _logged(SyncLog())


def forbid_syncs(allow: Collection[str] = ()) -> AbstractContextManager[SyncLog]:
    """``with forbid_syncs() as log:`` as :func:`count_syncs`, and the first sync raises SyncError with the line of it.

    allow: kinds of SYNCS that are noted but raise nothing. Raises ValueError for what is not one.
    """
    if unknown := sorted({allow} if isinstance(allow, str) else set(allow) - set(SYNCS)):
        raise ValueError(f"forbid_syncs: allow={allow!r}: expected some of {', '.join(SYNCS)}, got {unknown}")
    return _logged(SyncLog(allow))


@contextmanager
def allow_syncs() -> Iterator[None]:
    """Inside :func:`forbid_syncs`, a block whose syncs are meant: they are noted, and raise nothing."""
    global _allowing
    _allowing += 1
    try:
        yield
    finally:
        _allowing -= 1
