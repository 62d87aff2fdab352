"""Weights in the safetensors files of a folder, in one file or in several, read one tensor at a time.

So loading needs memory for the model, and for one tensor, or some rows of it, more. The safetensors library reads
neither bfloat16 (unless another package was imported before) nor float8 into NumPy arrays, so the bytes are decoded
here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt.checkpoint.base import CheckpointError, damaged, refuse_pointer
from gpt.errors import extra, short

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")

# How many bytes a number has, by safetensors' name of its type.
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}

ROWS_BYTES = 2**22  # of a part of a tensor

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """Where a tensor is: its file, its type and shape, and the place of its bytes in the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def find_tensors(folder: Path) -> dict[str, TensorSpec]:
    """Return the tensors of a folder by name. Raises CheckpointError, with the file, for one that cannot be used."""
    if (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
        return find_sharded(folder)
    if not (folder / SINGLE).is_file():
        for name in PICKLED:
            if (folder / name).exists():
                raise CheckpointError(
                    f"{str(folder / name)!r}: files of pickles can run any code, and are never read. Convert it with "
                    "transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
                )
        raise CheckpointError(f"{str(folder)!r} has no {SINGLE} and no {INDEX}, so it has no weights")
    return read_specs(folder / SINGLE)


def find_sharded(folder: Path) -> dict[str, TensorSpec]:
    """Return the tensors of a folder with several files, which its index names."""
    index = read_json(folder / INDEX)
    table = index.get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise damaged(folder / INDEX, f"weight_map: expected an object of file names, got {short(table)}")
    specs: dict[str, TensorSpec] = {}
    for name in sorted(set(table.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise damaged(folder / INDEX, f"weight_map: expected safetensors files of its folder, got {short(name)}")
        for key, spec in read_specs(folder / name).items():
            if table.get(key) == name:
                specs[key] = spec
    for key, name in table.items():
        if key not in specs:
            raise damaged(folder / INDEX, f"weight_map: {short(key)} is not in {name}")
    return specs


def read_specs(path: Path) -> dict[str, TensorSpec]:
    """Return the tensors of a safetensors file by name. Raises CheckpointError."""
    header, begin = read_header(path)
    header.pop("__metadata__", None)
    return {
        name: TensorSpec(path, entry["dtype"], tuple(entry["shape"]), *(begin + at for at in entry["data_offsets"]))
        for name, entry in header.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file. Raises CheckpointError."""
    metadata: dict[str, str] = read_header(path)[0].get("__metadata__", {})
    return metadata


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and where its numbers begin. Raises CheckpointError."""
    with extra():
        from safetensors import SafetensorError, safe_open
    try:
        with path.open("rb") as file:
            refuse_pointer(path, file.read(8))
        with path.open("rb") as file, safe_open(path, framework="numpy"):  # It checks the header against the file.
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise damaged(path, f"it is not a whole safetensors file ({error})") from None
    return header, 8 + size


def read_floats(name: str, spec: TensorSpec) -> Array:
    """Return a tensor of floating-point numbers as float64, float32 or float16. Raises CheckpointError."""
    check_type(name, spec)
    return decode_floats(read_bytes(spec, spec.start, spec.stop), spec.dtype).reshape(spec.shape)


def read_rows(name: str, spec: TensorSpec) -> Iterator[Array]:
    """Yield a tensor, see `read_floats`, in parts of some rows of at most ROWS_BYTES in the file."""
    check_type(name, spec)
    if not spec.shape or spec.start == spec.stop:
        yield read_floats(name, spec)
        return
    row = (spec.stop - spec.start) // spec.shape[0]
    step = row * max(1, ROWS_BYTES // row)
    for start in range(spec.start, spec.stop, step):
        raw = read_bytes(spec, start, min(start + step, spec.stop))
        yield decode_floats(raw, spec.dtype).reshape(-1, *spec.shape[1:])


def check_type(name: str, spec: TensorSpec) -> None:
    """Raise CheckpointError unless a tensor has floating-point numbers."""
    if spec.dtype not in FLOATS:
        raise damaged(spec.path, f"{name}: expected numbers of {', '.join(FLOATS)}, got {spec.dtype}")


def read_bytes(spec: TensorSpec, start: int, stop: int) -> Array:
    """Return the bytes of a file from start to stop. They are read, because mapped ones stay in memory for long."""
    raw = np.fromfile(spec.path, np.uint8, stop - start, offset=start)
    if len(raw) < stop - start:
        raise damaged(spec.path, f"it ends before its byte {stop}")
    return raw


def decode_floats(raw: Array, dtype: str) -> Array:
    """Return bytes as numbers: bfloat16 and float8 as float32, the others as they are."""
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype.startswith("F8"):
        return float8_values(*{"F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}[dtype])[raw]
    return raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])


def float8_values(exponent_bits: int, mantissa_bits: int) -> NDArray[np.float32]:
    """Return the value of each of the 256 float8 numbers (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").

    E5M2 has infinities as IEEE 754 has. E4M3 has none: its largest exponent has numbers, and NaN where all bits are 1.
    """
    code = np.arange(256)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    value = np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias))
    last = exponent == (1 << exponent_bits) - 1
    if exponent_bits == 5:
        value[last] = np.where(mantissa[last] == 0, np.inf, np.nan)
    else:
        value[(code & 127) == 127] = np.nan
    return np.where(code >> 7, -value, value).astype(np.float32)


def read_json(path: Path, limit: int = 2**26) -> dict[str, Any]:
    """Return the object in a JSON file of at most 64 MiB. Raises CheckpointError, with the file."""
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no file {str(path)!r}")
        if path.stat().st_size > limit:
            raise damaged(path, f"it has {path.stat().st_size:,} bytes, and such a file has fewer than {limit:,}")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise damaged(path, f"it is not JSON ({reason})") from None
    if not isinstance(value, dict):
        raise damaged(path, f"expected an object, got {short(value)}")
    return value


