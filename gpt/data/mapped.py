"""Arrays in files that are larger than memory: the system reads the pages that are used, and forgets them again."""

import mmap
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gpt.data.text import DataError

# Bytes of pages that a process keeps of a file. The system counts pages that are read as memory of the process, until
# it needs that memory. So a long run would seem to have the whole file in memory.
KEPT = 2**28
# Bytes around a place that the system maps when it is read: Linux maps 2 MiB where its cache has them in one piece.
AROUND = 2**21


class MappedArray:
    """A 1-d array in a file in NumPy's format (.npy), read-only. `array` reads from the file.

    Raises DataError if the file is not an array of this dtype and length, or is cut short.
    """

    def __init__(self, path: Path, dtype: "np.dtype[Any]", length: int) -> None:
        try:
            with path.open("rb") as file:
                found, shape = read_header(file)
                start, size = file.tell(), path.stat().st_size
                if (found, shape) != (dtype, (length,)):
                    raise DataError(
                        f"{str(path)!r}: expected {length:,} numbers of type {dtype}, as the index says, got "
                        f"{found} of shape {shape}. Prepare the folder again"
                    )
                if size != start + length * dtype.itemsize:
                    raise DataError(
                        f"{str(path)!r}: expected {start + length * dtype.itemsize:,} bytes, got {size:,}: it was cut "
                        "short or written to. Prepare the folder again"
                    )
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror}. Prepare the folder again") from None
        self.array: NDArray[Any] = np.frombuffer(self._file, dtype, length, start)
        self._touched = 0

    def touch(self, places: int, length: int) -> None:
        """Count what was read: `length` numbers in a row at several places. Drop the pages from time to time."""
        self._touched += places * (AROUND + length * self.array.itemsize)
        if self._touched > KEPT and hasattr(mmap, "MADV_DONTNEED"):
            self._file.madvise(mmap.MADV_DONTNEED)  # They are still in the system's cache.
            self._touched = 0


def read_header(file: BinaryIO) -> "tuple[np.dtype[Any], tuple[int, ...]]":
    """Return the dtype and the shape that the header of a file says. Raises DataError."""
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except (ValueError, KeyError, EOFError):
        raise DataError(f"{file.name!r} is not an array in NumPy's format. Prepare the folder again") from None
    return dtype, shape


def header(dtype: "np.dtype[Any]", length: int) -> bytes:
    """Return the header of a 1-d array. All lengths have headers of one size, so that it can be written last."""
    content = BytesIO()
    description = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    npy.write_array_header_1_0(content, description)
    return content.getvalue()
