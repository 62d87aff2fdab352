"""Documents in a file of JSON lines, encoded into memory: with the tokens that `gpt prepare` writes for this file."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpt.data.dataset import Dataset, Split
from gpt.data.preparation import Job, cut_into_jobs, encode_job, texts
from gpt.data.vocabulary import token_dtype
from gpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class JsonDocuments:
    """Documents that are to be encoded. jobs: the parts of the file, those of the training split first."""

    jobs: list[Job]

    def pieces(self) -> Iterator[str]:
        """Yield all documents."""
        return texts(self.jobs)

    def training_pieces(self) -> Iterator[str]:
        """Yield the documents of the training split, each with a line feed behind it."""
        return texts((job for job in self.jobs if job.split == "train"), "\n")

    def encode(self, tokenizer: Tokenizer) -> Dataset:
        """Return the tokens. Raises TokenizerError, with the line, if the tokenizer does not know a character."""
        dtype = token_dtype(tokenizer)
        ids: dict[Split, bytearray] = {"train": bytearray(), "val": bytearray()}
        ends: dict[Split, list[np.ndarray]] = {"train": [], "val": []}
        chars: dict[Split, int] = {"train": 0, "val": 0}
        for job in self.jobs:
            encoded = encode_job(job, tokenizer)
            ends[job.split].append(encoded.ends + len(ids[job.split]) // dtype.itemsize)
            ids[job.split] += encoded.tokens
            chars[job.split] += encoded.chars
        train, val = (np.frombuffer(bytes(ids[split]), dtype) for split in ids)
        nothing = np.empty(0, np.int64)
        joined = {split: np.concatenate([nothing, *found]) for split, found in ends.items()}
        return Dataset(tokenizer, train, val, chars, ends=joined)


def open_json_documents(name: str, field: str, val_fraction: float) -> JsonDocuments:
    """Return the documents in a field of JSON lines, the last ones of which are for validation. Raises DataError."""
    return JsonDocuments(cut_into_jobs(name, field, val_fraction))
