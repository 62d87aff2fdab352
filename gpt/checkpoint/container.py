"""The file of a checkpoint: safetensors, with checksums that cover every byte.

Our JSON is in the metadata of the file. It has a CRC-32 of the numbers of each tensor, and a SHA-256 of all bytes
before the numbers: the length of the header, names, types, shapes and places of the tensors, and the JSON itself. While
the SHA-256 is computed, zeros stand in its place. Format 1 has a CRC-32 of the JSON instead.
"""

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tensorlite as tl
from gpt.checkpoint.base import CheckpointError, damaged
from gpt.checkpoint.schema import check_header, parse_json
from gpt.errors import extra
from tensorlite import serialization

KEY = "tensorlite.gpt"  # The key of our JSON in the metadata.
FORMAT = 2
ZEROS = "0" * 64  # As long as a SHA-256 in hexadecimal digits.


@dataclass(frozen=True)
class Container:
    """An open file, of which the header is checked.

    header: our JSON. specs: (type, shape) of each tensor, with safetensors' name of the type.
    """

    path: Path
    header: dict[str, Any]
    specs: dict[str, tuple[str, tuple[int, ...]]]
    file: Any

    def read(self, name: str) -> Any:
        """Return a tensor as a NumPy array. Raises CheckpointError if its checksum does not match."""
        array = self.file.get_tensor(name)
        if crc32(array) != self.header["crc32"][name]:
            raise damaged(self.path, f"the checksum of {name!r} does not match")
        return array


def write(path: Path, header: dict[str, Any], tensors: Mapping[str, tl.Tensor]) -> None:
    """Write tensors and our JSON, with their checksums. After any error `path` still holds the previous file.

    Raises OSError.
    """
    sums = {name: crc32(value.numpy()) for name, value in tensors.items()}
    text = json.dumps({"format": FORMAT, "sha256": ZEROS, **header, "crc32": sums}, allow_nan=False)
    with serialization.atomic_write(path) as temporary:
        serialization.write(tensors, temporary, metadata={KEY: text})
        with temporary.open("r+b") as file:
            head = read_head(file)
            file.seek(head.index(sha256_field(ZEROS)) + len(sha256_field("")) - len(b'\\"'))
            file.write(hashlib.sha256(head).hexdigest().encode())


@contextmanager
def opened(path: Path) -> Iterator[Container]:
    """Context manager that opens a checkpoint and checks its header.

    Raises CheckpointError if the file is missing, unreadable, incomplete, damaged, or of another program.
    """
    head, file = open_once(path)
    with file:
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            raise CheckpointError(f"{str(path)!r} is a safetensors file, but not a checkpoint of this program")
        header = parse_json(path, text)
        version = header.get("format")
        if type(version) is int and version > FORMAT:
            raise CheckpointError(
                f"{str(path)!r} has format {version}, and this version of tensorlite reads formats up to {FORMAT}: "
                "upgrade it"
            )
        names = list(file.keys())
        check = {1: check_format_1, 2: check_format_2}.get(version if type(version) is int else 0)
        if check is None:
            raise damaged(path, f"format: expected 1 or 2, got {version!r:.80}")
        check(path, text, header, head)
        # This refuses a name that comes twice, where readers may choose differently.
        table = parse_json(path, head[8:].decode())
        if header["crc32"].keys() != set(names):
            raise damaged(path, "crc32: the tensors that have a checksum are not those in the file")
        check_header(path, header)
        specs = {name: (table[name]["dtype"], tuple(table[name]["shape"])) for name in names}
        yield Container(path, header, specs, file)


def open_once(path: Path) -> tuple[bytes, Any]:
    """Return the bytes before the numbers, and the open safetensors file. Raises CheckpointError."""
    with extra():
        from safetensors import SafetensorError, safe_open

    while True:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                kind = "a folder. Name a file in it" if path.is_dir() else "a pipe or a device"
                raise CheckpointError(f"{str(path)!r} is not a checkpoint, but {kind}")
            # Open it first, because safe_open reports an unreadable file as missing.
            with path.open("rb") as first:
                file = safe_open(path, framework="numpy")
                # If a run has replaced the file between the two calls, they have opened two files.
                if os.path.samestat(os.fstat(first.fileno()), path.stat()):
                    return read_head(first), file
        except FileNotFoundError:
            raise CheckpointError(f"there is no checkpoint {str(path)!r}") from None
        except SafetensorError as error:
            raise CheckpointError(
                f"{str(path)!r} is not a checkpoint, or only a part of one (not a whole safetensors file: {error})"
            ) from error
        except OSError as error:
            raise CheckpointError(f"cannot read the checkpoint {str(path)!r}: {error.strerror or error}") from None


def read_head(file: Any) -> bytes:
    """Return the bytes of a safetensors file before its numbers: the length of the header, and the header."""
    file.seek(0)
    length: bytes = file.read(8)
    head: bytes = length + file.read(int.from_bytes(length, "little"))
    return head


def sha256_field(digits: str) -> bytes:
    """Return the bytes of the SHA-256 in the header, where our JSON is a string in the JSON of safetensors."""
    return rf"\"sha256\": \"{digits}\"".encode()


def check_format_2(path: Path, text: str, header: dict[str, Any], head: bytes) -> None:
    """Raise CheckpointError if a byte before the numbers has changed, or if there are no checksums."""
    digest = header.pop("sha256", None)
    if digest is None or "crc32" not in header:
        raise no_checksums(path)
    field = sha256_field(digest) if isinstance(digest, str) else b""
    if head.count(field) != 1 or hashlib.sha256(head.replace(field, sha256_field(ZEROS))).hexdigest() != digest:
        raise damaged(path, "the checksum of its header does not match")


def check_format_1(path: Path, text: str, header: dict[str, Any], head: bytes) -> None:
    """Raise CheckpointError if our JSON has changed, or if there are no checksums."""
    check = header.pop("check", None)
    if check is None or "crc32" not in header:
        raise no_checksums(path)
    # A checksum of the parsed JSON does not notice another spelling, such as 1E-05, so the text is compared, too.
    if check != zlib.crc32(json.dumps(header).encode()) or text != json.dumps({**header, "check": check}):
        raise damaged(path, "the checksum of its JSON does not match")


def no_checksums(path: Path) -> CheckpointError:
    """Return the error for a file that this program has not written."""
    return CheckpointError(
        f"{str(path)!r} has no checksums, so it is of another program, or of a version of tensorlite before 0.1"
    )


def crc32(array: Any) -> int:
    """Return the CRC-32 of the values of a NumPy array."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
