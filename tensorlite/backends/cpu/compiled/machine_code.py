"""The machine code of compiled functions on disk, checked when it is loaded.

numba loads what its cache files contain. A file that was cut raises an error from within numba, and a changed bit gives
other numbers. Here each file starts with the SHA-256 of the rest, and a file that does not fit is compiled anew.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import pickle
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache

from ... import reference

__all__ = ["MachineCodeCache", "kernel_sources", "warn_once"]

LOGGER = logging.getLogger("tensorlite.compiled")
_DIGEST_SIZE = hashlib.sha256().digest_size


def kernel_sources() -> list[Path]:
    """Return the files whose code or constants are compiled into kernels."""
    return [*sorted(Path(__file__).parent.glob("*.py")), Path(reference.__file__)]


@cache
def warn_once(message: str) -> None:
    """Give a RuntimeWarning, once in a process."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


class MachineCodeCache(FunctionCache):  # type: ignore[misc]  # numba has no types
    """The cache of one compiled function, in the interface of numba's caches.

    The code is compiled anew if a source of the kernels, the function's file, numba or the processor changes.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        # numba looks only at the function's own file. But the kernels that a function calls are compiled into it, and
        # so are constants, such as reference.ERF_TANH.
        sources = [(file.stat().st_mtime, file.stat().st_size) for file in kernel_sources()]
        stamp = (self._impl.locator.get_source_stamp(), sources)
        self._cache_file = _CheckedFiles(Path(self.cache_path), self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code of a signature, or None if it has to be compiled, which is logged at the level INFO."""
        found = super().load_overload(sig, target_context)
        if found is None:
            LOGGER.info("compiling %s", self._py_func.__qualname__)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write compiled code. If that fails, as on a full disk, warn once."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            warn_once(
                f"tensorlite: the compiled kernels cannot be saved in {self.cache_path} ({error}), so each process "
                "compiles them again. Make room there, or set NUMBA_CACHE_DIR to a folder that can be written."
            )


class _CheckedFiles:
    """The files of one function, one for each signature, in the interface of numba's IndexDataCacheFile."""

    def __init__(self, folder: Path, name: str, stamp: Any) -> None:
        self.folder, self.name, self.stamp = folder, name, _short_hash(stamp)

    def path(self, key: Any) -> Path:
        """Return the file of a signature. Its name has hashes of all that decides the code."""
        versions = (numba.__version__, llvmlite.__version__)
        return self.folder / f"{self.name}.{self.stamp}.{_short_hash((key, versions))}.code"

    def load(self, key: Any) -> Any:
        """Return the code of a signature, or None if there is no file, or not the one that was written."""
        try:
            content = self.path(key).read_bytes()
        except OSError:
            return None
        digest, code = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        return pickle.loads(code) if hashlib.sha256(code).digest() == digest else None  # noqa: S301

    def save(self, key: Any, data: Any) -> None:
        """Write the code of a signature, and delete the code of older sources. Raises OSError if it cannot write."""
        code = numba.core.serialize.dumps(data)
        path = self.path(key)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=f"{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
            for old in set(self._files()) - set(self._files(self.stamp)):
                old.unlink(missing_ok=True)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        """Delete the files of this function."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self, stamp: str = "*") -> list[Path]:
        return list(self.folder.glob(f"{glob.escape(self.name)}.{stamp}.*.code"))


def _short_hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
