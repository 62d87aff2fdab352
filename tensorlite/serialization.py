"""Tensors in safetensors files: a JSON header, then the raw numbers.

Nothing is pickled, so loading a file runs no code. Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .backends.registry import BACKENDS, DeviceLike
from .backends.registry import device as as_device
from .dtypes import as_dtype
from .tensors.creation import as_tensor
from .tensors.tensor import Tensor

__all__ = ["atomic_write", "flush_to_disk", "load", "load_metadata", "save", "write"]

PathLike: TypeAlias = str | os.PathLike[str]


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("saving and loading need the safetensors library: pip install safetensors") from None
    return safetensors


# ---- writing --------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Context manager that replaces the file at ``path`` in one step, so that no reader sees half a file.

        with atomic_write("metrics.json") as temporary:
            temporary.write_text(text)

    It yields the path of an empty temporary file in the same folder. At the end of the block that file is flushed to
    the disk and renamed to ``path``. If the block or the flush fails, the old file stays and the temporary one is
    removed. A symbolic link stays a link: the file that it points to is replaced. The new file gets the permissions
    that the umask gives.

    Raises IsADirectoryError if ``path`` is a folder, FileNotFoundError if its folder does not exist, and OSError.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to write {target.name!r} to")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # because some writers, such as safetensors, replace it by a file with other permissions
        flush_to_disk(temporary)
        os.replace(temporary, target)
        flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: PathLike) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk, so that a power cut keeps them.

    A new file needs both: its content, and its name in its folder. Where the system cannot open folders, as on Windows,
    a folder is skipped. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.path.isdir(path):
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(tensors: Mapping[str, Tensor], path: PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write a ``state_dict()``, or another dict of names and Tensors, to one safetensors file.

    The file is replaced in one step: if anything fails, the old file at ``path`` stays. Tensors that share memory are
    written separately. Devices and ``requires_grad`` are not saved.

    metadata: strings by name, saved in the header of the file.

    Raises TypeError if ``tensors`` is not a dict of str and Tensor, or ``metadata`` is not a dict of str and str.
    Raises ValueError for a dtype or a name that the format does not have, and OSError, with the path, if writing fails.
    """
    arrays = _arrays(tensors)
    _check_metadata(metadata)
    try:
        with atomic_write(path) as temporary:
            _write(arrays, temporary, metadata)
    except (IsADirectoryError, FileNotFoundError) as error:
        raise type(error)(f"save: {error}") from None
    except OSError as error:
        raise OSError(f"save: cannot write {str(path)!r}: {error}") from error


def write(tensors: Mapping[str, Tensor], path: PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file as :func:`save` does, but straight to ``path``, for use in :func:`atomic_write`.

    If writing fails, the old file at ``path`` may be lost. Raises the errors of :func:`save`.
    """
    arrays = _arrays(tensors)
    _check_metadata(metadata)
    try:
        _write(arrays, Path(path), metadata)
    except OSError as error:
        raise OSError(f"save: cannot write {str(path)!r}: {error}") from error


def _write(arrays: dict[str, Any], path: Path, metadata: Mapping[str, str] | None) -> None:
    """Write arrays to ``path``. Raises OSError."""
    library = _safetensors()
    # safetensors writes to a temporary file next to the one that it is given. In a folder of our own, a killed process
    # leaves no file whose name does not say what it was.
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        written = Path(folder) / "new"
        try:
            library.numpy.save_file(arrays, written, None if metadata is None else dict(metadata))
        except library.SafetensorError as error:
            raise OSError(str(error)) from error
        path.unlink(missing_ok=True)  # because Windows does not rename to a file that exists
        written.rename(path)


def _check_metadata(metadata: Any) -> None:
    """Raise TypeError unless it is None or a dict of str and str."""
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save: metadata must be str by str, got {key!r}: {value!r:.80}. Try json.dumps().")


def _arrays(tensors: Any) -> dict[str, Any]:
    """Return the tensors as contiguous NumPy arrays by name. Raises TypeError or ValueError, see :func:`save`."""
    _safetensors()  # because a missing package is reported before anything else
    if not isinstance(tensors, Mapping):
        given = type(tensors).__name__
        raise TypeError(f"save: expected a dict of names and Tensors, got {given}. Pass module.state_dict().")
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"save: expected a dict of str and Tensor, got {name!r}: {type(value).__name__}")
        if name == "__metadata__":
            raise ValueError("save: the name '__metadata__' is reserved by the format. Rename the tensor.")
        if value.dtype.kind == "c" or value.dtype.itemsize > 8:
            raise ValueError(f"save: {name!r} is {value.dtype}, which the format does not have")
        arrays[name] = np.ascontiguousarray(BACKENDS[type(value.array)].to_numpy(value.array)).reshape(value.shape)
    return arrays


# ---- reading --------------------------------------------------------------------------------


def _open(path: PathLike) -> Any:
    """Return an open safetensors file. Raises FileNotFoundError, IsADirectoryError, and ValueError if it is damaged."""
    library = _safetensors()
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load: expected a path, got {type(path).__name__}. Use tl.load('model.safetensors').")
    if not os.path.exists(path):
        raise FileNotFoundError(f"load: there is no file {str(path)!r}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"load: {str(path)!r} is a folder")
    if not stat.S_ISREG(os.stat(path).st_mode):  # because reading from a pipe or a device may never end
        raise ValueError(f"load: {str(path)!r} is not a safetensors file, but a pipe or a device")
    try:
        return library.safe_open(path, framework="numpy")
    except library.SafetensorError as error:
        raise ValueError(f"load: {str(path)!r} is not a safetensors file, or it is incomplete: {error}") from None


def load(path: PathLike, device: DeviceLike = None) -> dict[str, Tensor]:
    """Return the Tensors of a safetensors file by name, in the dtypes of the file.

    device: where the tensors are made; None: on the default device.

    Raises FileNotFoundError; ValueError if the file is damaged or holds a dtype that tensors do not have (float8);
    DTypeError for bfloat16 without the package ml_dtypes; DeviceError if the device cannot be used.
    """
    tensors, where = {}, as_device(device)
    with _open(path) as file:
        for name in file.keys():
            dtype = file.get_slice(name).get_dtype()
            if dtype == "BF16":
                as_dtype("bfloat16")  # after which NumPy knows the name
            try:
                array = file.get_tensor(name)
                as_dtype(array.dtype)  # ml_dtypes has float8, which tensors have not
            except (TypeError, KeyError, AttributeError):
                what = f"{name!r} in {str(path)!r}"
                raise ValueError(f"load: {what} has dtype {dtype}, which tensors do not have") from None
            tensors[name] = as_tensor(array, device=where)
    return tensors


def load_metadata(path: PathLike) -> dict[str, str]:
    """Return the metadata of a safetensors file, without reading its tensors. Raises as :func:`load` does."""
    with _open(path) as file:
        return dict(file.metadata() or {})
