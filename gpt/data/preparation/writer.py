"""Write the arrays of a folder of tokens bit by bit, so that a process that is killed leaves what it has done.

The arrays grow in files whose names end with .partial. From time to time they are flushed to the disk, and then a file
`progress.json` says how long they are. A later process cuts them to that length and goes on there.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpt.data.dataset import Split
from gpt.data.mapped import header
from gpt.data.preparation.units import Encoded
from gpt.data.text import DataError
from gpt.data.token_folder import ENDS, PROGRESS, SPLITS, Index, ends_file, tokens_file, write_index
from gpt.tokenizer import Tokenizer
from tensorlite import serialization

SECONDS = 2.0  # between two records of the progress
PARTIAL = ".partial"
READ = 2**20  # bytes of a file that are read at once


class GrowingArray:
    """A 1-d array in a file that is written from start to end. length: the numbers that it has already."""

    def __init__(self, path: Path, dtype: "np.dtype[Any]", length: int) -> None:
        self.path, self.partial, self.dtype, self.length = path, path.with_name(path.name + PARTIAL), dtype, length
        if path.exists() and not self.partial.exists():  # The process was killed when it had renamed this file.
            path.rename(self.partial)
        start = header(dtype, 0)
        self.file: BinaryIO = self.partial.open("r+b" if length else "w+b")
        kept = len(start) + length * dtype.itemsize
        if self.partial.stat().st_size < kept and length:
            self.file.close()
            raise DataError(
                f"{str(self.partial)!r} was cut short: expected {kept:,} bytes at least. Delete the folder, and "
                "prepare it again"
            )
        self.file.write(start)
        self.file.truncate(kept)
        self.file.seek(kept)

    def append(self, content: bytes) -> None:
        """Append numbers, given as bytes."""
        self.file.write(content)
        self.length += len(content) // self.dtype.itemsize

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def finish(self, digest: "hashlib._Hash | None" = None) -> dict[str, Any]:
        """Give the file its length and its name. Return its size in bytes and its SHA-256.

        digest: a hash that gets the numbers, without the header of the file.
        """
        start = header(self.dtype, self.length)
        self.file.seek(0)
        self.file.write(start)
        self.flush()
        sha = hashlib.sha256(start)
        self.file.seek(len(start))
        while content := self.file.read(READ):
            sha.update(content)
            if digest is not None:
                digest.update(content)
        self.file.close()
        self.partial.replace(self.path)
        return {"bytes": self.path.stat().st_size, "sha256": sha.hexdigest()}


class TokenWriter:
    """The arrays of a folder, and the record of the progress. plan: what is prepared; unit: see `cut_file`.

    progress: what an earlier process has recorded, None at the start.
    """

    def __init__(
        self, folder: Path, dtype: "np.dtype[Any]", plan: dict[str, Any], unit: int, vocabulary: str,
        progress: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        kept = progress or {"done": 0, "chars": dict.fromkeys(SPLITS, 0), "tokens": {}, "ends": {}}
        self.folder, self.done, self.chars = folder, int(kept["done"]), dict(kept["chars"])
        self.plan, self.unit, self.vocabulary = plan, unit, vocabulary
        self.tokens = {s: GrowingArray(folder / tokens_file(s), dtype, kept["tokens"].get(s, 0)) for s in SPLITS}
        self.ends = {s: GrowingArray(folder / ends_file(s), ENDS, kept["ends"].get(s, 0)) for s in SPLITS}
        self.saved, self.record = time.monotonic(), self.snapshot()
        if progress is None:
            try:
                self.save()
            except BaseException:
                self.close()
                raise

    def append(self, split: Split, encoded: Encoded) -> None:
        """Append what a job has encoded, and record the progress from time to time."""
        before = self.tokens[split].length
        self.tokens[split].append(encoded.tokens)
        self.ends[split].append((encoded.ends + before).astype(ENDS).tobytes())
        self.chars = {**self.chars, split: self.chars[split] + encoded.chars}
        self.done += 1
        self.record = self.snapshot()  # In one step, because Ctrl-C may come at any place above.
        if time.monotonic() - self.saved > SECONDS:
            self.save()

    def save(self) -> None:
        """Record the progress, once everything is on the disk. Raises OSError."""
        for array in (*self.tokens.values(), *self.ends.values()):
            array.flush()
        with serialization.atomic_write(self.folder / PROGRESS) as temporary:
            temporary.write_text(json.dumps(self.record))
        self.saved = time.monotonic()

    def snapshot(self) -> dict[str, Any]:
        """Return the record of what has been appended."""
        return {
            "plan": self.plan, "unit": self.unit, "vocabulary": self.vocabulary, "done": self.done,
            "chars": self.chars, "tokens": {split: array.length for split, array in self.tokens.items()},
            "ends": {split: array.length for split, array in self.ends.items()},
        }  # fmt: skip

    def finish(self, tokenizer: Tokenizer, val_fraction: float) -> Index:
        """Give all arrays their names and write the index, after which the folder is whole. Raises OSError."""
        self.save()
        digest, files = hashlib.sha256(), {}
        for split in SPLITS:
            files[tokens_file(split)] = self.tokens[split].finish(digest)
            files[ends_file(split)] = self.ends[split].finish()
        index = Index(
            digest=digest.hexdigest(), vocabulary=self.vocabulary, tokenizer=tokenizer.kind,
            vocab_size=tokenizer.vocab_size, dtype=self.tokens["train"].dtype.name, val_fraction=val_fraction,
            tokens={split: self.tokens[split].length for split in SPLITS},
            documents={split: self.ends[split].length for split in SPLITS},
            chars=self.chars, files=files, plan=self.plan,
        )  # fmt: skip
        write_index(self.folder, index)
        (self.folder / PROGRESS).unlink()
        return index

    def close(self) -> None:
        """Close the files."""
        for array in (*self.tokens.values(), *self.ends.values()):
            array.file.close()
