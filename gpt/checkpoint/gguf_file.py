"""An open GGUF file: its metadata as values of Python, and its tensors, each read when it is wanted.

The package gguf reads the format. It makes two arrays for each text of a list, and a vocabulary has 100,000 texts, so
lists are read here. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt.checkpoint.base import CheckpointError, damaged, refuse_pointer
from gpt.errors import extra, short

Array = NDArray[Any]
Order = Literal["<", ">"]  # of the bytes of a number
READS_FIELD = "_get_field_parts"  # the method of the package that reads the value of a key
ROWS_BYTES = 2**20  # of a part of a tensor, so that a large one does not need its memory twice


@dataclass(frozen=True)
class GGUFFile:
    """An open file.

    metadata: plain values of Python by key. tensors: those of the package gguf, by name. swapped: whether numbers have
    the order of bytes that this machine has not.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]
    swapped: bool = False

    def kind(self, name: str) -> str:
        """Return the type of the numbers of a tensor, by the name that ggml gives it, such as F32 or Q8_0."""
        return str(self.tensors[name].tensor_type.name)

    def read_raw(self, name: str) -> Array:
        """Return a tensor as it is in the file: numbers, or the bytes of its blocks, (rows, bytes of a row).

        The bytes are read, not mapped, because mapped pages would count as memory of the process until the end.
        """
        return self.raw_rows(name, 0, len(self.tensors[name].data))

    def raw_rows(self, name: str, start: int, stop: int) -> Array:
        """Return the rows from start to stop of a tensor as they are in the file, see `read_raw`."""
        tensor, rows = self.tensors[name], self.tensors[name].data[start:stop]
        offset = int(tensor.data_offset) + start * (tensor.data.nbytes // (len(tensor.data) or 1))
        data = np.fromfile(self.path, rows.dtype, rows.size, offset=offset)
        if data.size != rows.size:
            raise damaged(self.path, f"{name}: expected {rows.size} numbers, got {data.size}")
        return data.reshape(rows.shape).astype(rows.dtype.newbyteorder("="), copy=False)

    def read(self, name: str) -> Array:
        """Return a tensor as float32 or float16 numbers. Raises CheckpointError for a type that has no such numbers."""
        return self.numbers(name, self.read_raw(name))

    def read_rows(self, name: str) -> Iterator[Array]:
        """Yield the numbers of a tensor, see `read`, in parts of some rows of at most ROWS_BYTES as float32."""
        count, width = len(self.tensors[name].data), math.prod(self.tensors[name].shape[:-1].tolist())
        rows = max(1, ROWS_BYTES // (4 * width or 1))
        for start in range(0, count, rows):
            yield self.numbers(name, self.raw_rows(name, start, min(start + rows, count)))

    def numbers(self, name: str, raw: Array) -> Array:
        """Return rows of a tensor that `read_raw` has read as float32 or float16 numbers. Raises CheckpointError."""
        from gguf.quants import dequantize

        kind = self.tensors[name].tensor_type
        try:
            if self.swapped and raw.dtype == np.uint8:
                raise ValueError("its numbers have the order of bytes of another machine")
            return np.asarray(dequantize(raw, kind))
        except (NotImplementedError, ValueError) as error:
            raise damaged(self.path, f"{name}: weights of type {kind.name} cannot be read ({error})") from None


def open_gguf(path: str | Path) -> GGUFFile:
    """Return a file whose header is read. Raises CheckpointError, with the path, if it is not a whole GGUF file."""
    path = Path(path)
    reader_of = reader_class()
    try:
        check_magic(path)
        reader = reader_of(path)
        metadata = {key: value_of_field(field) for key, field in reader.fields.items()}
        check_places(path, reader.tensors)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        return GGUFFile(path, metadata, tensors, reader.byte_order == "S")
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        # What the package raises depends on where the file is cut or damaged.
        raise damaged(path, f"it is not a whole GGUF file ({type(error).__name__}: {short(str(error))})") from None


def check_magic(path: Path) -> None:
    """Raise CheckpointError unless a file begins as GGUF files do."""
    with path.open("rb") as file:
        begin = file.read(8)
    refuse_pointer(path, begin)
    magic = begin[:4]
    if magic != b"GGUF":
        raise CheckpointError(f"{str(path)!r} is not a GGUF file: it begins with {magic!r}")


def check_places(path: Path, tensors: Sequence[Any]) -> None:
    """Raise CheckpointError if two tensors have bytes in common."""
    stop, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: int(tensor.data_offset)):
        if tensor.data_offset < stop:
            raise damaged(path, f"the tensors {short(before)} and {short(tensor.name)} overlap")
        stop, before = int(tensor.data_offset) + int(tensor.n_bytes), tensor.name


def value_of_field(field: Any) -> Any:
    """Return the value of a field. An empty array, which the package takes for no value, is an empty list."""
    lists = [part.tolist() for part in field.parts if part.dtype == object]  # those that `read_list` has read
    if lists:
        return [entry for values in lists for entry in values]  # The package makes one list of nested ones, too.
    value = field.contents()
    return [] if value is None or (not field.data and field.types[0].name == "ARRAY") else value


def reader_class() -> Any:
    """Return the package's class of readers, where lists of texts and numbers are read by `read_list`.

    The method that is replaced is not public. In a version of the package without it, its lists are read as it does.
    """
    with extra():
        from gguf import GGUFReader, GGUFValueType

    plain = getattr(GGUFReader, READS_FIELD, None)
    if plain is None:
        return GGUFReader

    def read_field(self: Any, start: int, raw_type: int) -> Any:
        """Return the size, the parts, the places of values among them, and the types; a list is one part."""
        if raw_type == GGUFValueType.ARRAY:
            order: Order = "<" if (sys.byteorder == "little") == (self.byte_order == "I") else ">"
            head = self.data[start : start + 12]
            kind, count = (int(head[a:b].view(f"{order}u{b - a}")[0]) for a, b in ((0, 4), (4, 12)))
            number = self.gguf_scalar_to_np.get(GGUFValueType(kind))
            if count and (number is not None or kind == GGUFValueType.STRING):
                item = None if number is None else np.dtype(number).newbyteorder(order)
                values, stop = read_list(self.data, start + 12, count, item, order)
                return stop - start, [head, values], [1], [GGUFValueType.ARRAY, GGUFValueType(kind)]
        return plain(self, start, raw_type)

    return type("ListReader", (GGUFReader,), {READS_FIELD: read_field})


def read_list(data: Array, start: int, count: int, item: "np.dtype[Any] | None", order: Order) -> tuple[Array, int]:
    """Return a list in a file as an array of objects, (count,), and the place after it.

    data: the bytes of the file. item: the type of numbers, None for texts, each of which follows its length in bytes, a
    uint64. order: the order of bytes, < or >. Raises ValueError if the list goes beyond the end of the file.
    """
    size = 8 if item is None else item.itemsize
    if count * size > len(data) - start:
        raise ValueError(f"a list of {count} values goes beyond the end of the file")
    values = np.empty(count, object)
    if item is not None:
        stop = start + count * size
        values[:] = data[start:stop].view(item).tolist()
        return values, stop
    content, texts, at = data.data, [], start
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"
    for _ in range(count):
        begin = at + 8
        at = begin + int.from_bytes(content[at:begin], byteorder)
        texts.append(str(content[begin:at], "utf-8"))
    if at > len(data):  # A slice beyond the end is empty, so the loop ends in any case.
        raise ValueError(f"a list of {count} texts goes beyond the end of the file")
    values[:] = texts
    return values, at
