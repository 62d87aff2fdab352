"""Tensors on disk, as safetensors files: a JSON header, then the raw numbers. Nothing is pickled, nothing is run.

Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .backends.registry import BACKENDS, DeviceLike
from .backends.registry import device as as_device
from .tensors.creation import as_tensor
from .tensors.tensor import Tensor

__all__ = ["load", "load_metadata", "save"]

PathLike: TypeAlias = str | os.PathLike[str]


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("saving and loading need the safetensors library: pip install safetensors") from None
    return safetensors


# ---- writing --------------------------------------------------------------------------------


def save(tensors: Mapping[str, Tensor], path: PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write a ``state_dict()``, or any dict of names and Tensors, to one safetensors file.

    The file is put in place whole: if anything goes wrong, what was at ``path`` is still there. Tensors that share
    memory are written one by one; devices and ``requires_grad`` are not kept.

    metadata: strings by name, for whatever else matters.

    Raises TypeError for what is not a dict of str and Tensor or if metadata is not str, ValueError for a dtype or name
    that the format does not have, and OSError, with the path, if it cannot be written.
    """
    library = _safetensors()
    arrays = _arrays(tensors)
    if metadata is not None:
        for key, value in metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"save: metadata must be str by str, got {key!r}: {value!r:.80}; try json.dumps()")
    target = Path(os.path.realpath(path))  # a link stays a link: what it points at is replaced
    if target.is_dir():
        raise IsADirectoryError(f"save: {str(path)!r} is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"save: there is no folder {str(target.parent)!r} to write {target.name!r} to")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask says; the library makes files that only their owner can read
        library.numpy.save_file(arrays, temporary, None if metadata is None else dict(metadata))
        temporary.chmod(mode)
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except (library.SafetensorError, OSError) as error:
        raise OSError(f"save: cannot write {str(path)!r}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _arrays(tensors: Any) -> dict[str, Any]:
    """The tensors as contiguous NumPy arrays, checked."""
    if not isinstance(tensors, Mapping):
        given = type(tensors).__name__
        raise TypeError(f"save: expected a dict of names and Tensors, got {given}; a module has state_dict()")
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"save: expected a dict of str and Tensor, got {name!r}: {type(value).__name__}")
        if name == "__metadata__":
            raise ValueError("save: the name '__metadata__' means something else in this format")
        if value.dtype.kind == "c" or value.dtype.itemsize > 8:
            raise ValueError(f"save: {name!r} is {value.dtype}, which this format does not have")
        arrays[name] = np.ascontiguousarray(BACKENDS[type(value.array)].to_numpy(value.array)).reshape(value.shape)
    return arrays


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk; folders cannot be opened everywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- reading --------------------------------------------------------------------------------


def _open(path: PathLike) -> Any:
    """An open safetensors file. Raises FileNotFoundError, and ValueError if it is not one or not whole."""
    library = _safetensors()
    if not os.path.exists(path):
        raise FileNotFoundError(f"load: there is no file {str(path)!r}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"load: {str(path)!r} is a folder")
    try:
        return library.safe_open(path, framework="numpy")
    except library.SafetensorError as error:
        raise ValueError(f"load: {str(path)!r} is not a safetensors file, or not a whole one: {error}") from None


def load(path: PathLike, device: DeviceLike = None) -> dict[str, Tensor]:
    """The Tensors of a safetensors file by name, on ``device`` (None: the default device), in the dtypes they have.

    Raises FileNotFoundError; ValueError if the file is damaged, or holds a dtype that NumPy does not have (bfloat16);
    DeviceError.
    """
    tensors, where = {}, as_device(device)
    with _open(path) as file:
        for name in file.keys():
            try:
                array = file.get_tensor(name)
            except (TypeError, KeyError, AttributeError):
                dtype = file.get_slice(name).get_dtype()
                what = f"{name!r} in {str(path)!r}"
                raise ValueError(f"load: {what} has dtype {dtype}, which NumPy does not have") from None
            tensors[name] = as_tensor(array, device=where)
    return tensors


def load_metadata(path: PathLike) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors. Raises as :func:`load` does."""
    with _open(path) as file:
        return dict(file.metadata() or {})
