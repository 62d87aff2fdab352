"""A folder of tokens: texts that `gpt prepare` has encoded once, in arrays that are mapped into memory.

    index.json              what the folder has; it is written last, so a folder with it is whole
    vocabulary.json         the tokenizer
    train.npy, val.npy      the tokens of each split, one document after the other, unsigned integers
    train-ends.npy, ...     the position after the last token of each document, int64

The arrays are in NumPy's format: `numpy.load(path, mmap_mode="r")` reads them, too.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt.data.dataset import Split
from gpt.data.text import DataError
from gpt.data.vocabulary import VOCABULARY
from gpt.errors import short
from tensorlite import serialization

FORMAT, VERSION = "tensorlite tokens", 1
INDEX, PROGRESS = "index.json", "progress.json"
SPLITS: tuple[Split, Split] = ("train", "val")
ENDS = np.dtype("<i8")  # of the array of ends
DTYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}  # of tokens


@dataclass(frozen=True)
class Index:
    """What a folder of tokens has: the content of its index.

    digest: a SHA-256 of the tokens of both splits. vocabulary: that of the tokenizer's file. tokens, documents, chars:
    their numbers in each split. files: the size in bytes and the SHA-256 of each array. plan: the sources with their
    SHA-256, and the options.
    """

    digest: str
    vocabulary: str
    tokenizer: str
    vocab_size: int
    dtype: str
    val_fraction: float
    tokens: dict[str, int]
    documents: dict[str, int]
    chars: dict[str, int]
    files: dict[str, dict[str, Any]]
    plan: dict[str, Any]


def tokens_file(split: Split) -> str:
    """Return the name of the array with the tokens of a split."""
    return f"{split}.npy"


def ends_file(split: Split) -> str:
    """Return the name of the array with the ends of the documents of a split."""
    return f"{split}-ends.npy"


def is_token_folder(path: Path) -> bool:
    """Return whether a path is a folder of tokens, whole or not; False for a path that cannot be looked up."""
    try:
        return any((path / name).is_file() for name in (INDEX, PROGRESS))
    except OSError:
        return False


def write_index(folder: Path, index: Index) -> None:
    """Write the index of a folder, which makes it whole. Raises OSError."""
    values = {"format": FORMAT, "version": VERSION, **vars(index)}
    with serialization.atomic_write(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(values, indent=1))


def read_index(folder: Path) -> Index:
    """Return the index of a folder. Raises DataError if the folder is not whole, or the index not of this form."""
    path = folder / INDEX
    if not path.exists() and (folder / PROGRESS).exists():
        raise DataError(
            f"{str(folder)!r} is not whole: its preparation was interrupted. Run that command again, which continues it"
        )
    values = read_json(path)
    found = (values.pop("format", None), values.pop("version", None))
    if found != (FORMAT, VERSION):
        raise DataError(
            f"{str(path)!r}: expected {FORMAT!r} of version {VERSION}, got {short(found[0])} of version "
            f"{short(found[1])}. Prepare the folder again, with this version of tensorlite"
        )
    try:
        index = Index(**values)
        check(index)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}. Prepare the folder again") from None
    return index


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON. Raises DataError."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read {str(path)!r}: {reason}. Prepare the folder again") from None
    if not isinstance(values, dict):
        raise DataError(f"{str(path)!r} is damaged: expected an object. Prepare the folder again")
    return values


def check(index: Index) -> None:
    """Raise ValueError or KeyError, with the key, if a value of an index is not of its kind."""
    for name in ("digest", "vocabulary", "tokenizer"):
        if type(value := getattr(index, name)) is not str:
            raise ValueError(f"{name}: expected a text, got {short(value)}")
    numbers = {"vocab_size": index.vocab_size}
    for name in ("tokens", "documents", "chars"):
        numbers |= {f"{name}.{split}": getattr(index, name)[split] for split in SPLITS}
    for name, value in numbers.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name}: expected a number from 0, got {short(value)}")
    if index.dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {short(index.dtype)}")
    if not isinstance(index.val_fraction, int | float) or not 0 <= index.val_fraction < 1:
        raise ValueError(f"val_fraction: expected a number from 0 to below 1, got {short(index.val_fraction)}")


def verify(folder: Path, index: Index) -> None:
    """Raise DataError if a file of a folder does not have the SHA-256 that the index says. Reads all of them."""
    expected = {name: values["sha256"] for name, values in index.files.items()} | {VOCABULARY: index.vocabulary}
    for name, sha256 in expected.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {str(folder / name)!r}: {error.strerror}. Prepare the folder again") from None
        if found != sha256:
            raise DataError(
                f"{str(folder / name)!r} is damaged: it does not have the SHA-256 of the index. Delete the folder, and "
                "prepare it again"
            )
