"""The data set in a folder of tokens, whose arrays are mapped into memory."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt.data.dataset import Dataset, Split
from gpt.data.mapped import MappedArray
from gpt.data.text import DataError
from gpt.data.token_folder import DTYPES, ENDS, SPLITS, Index, ends_file, read_index, tokens_file
from gpt.data.vocabulary import fingerprint, read_vocabulary
from gpt.tokenizer import Ids, Tokenizer, same_tokens


@dataclass(frozen=True)
class TokenDataset(Dataset):
    """A data set in a folder that `gpt prepare` wrote. Of its tokens, those that are used are in memory for a while."""

    index: Index = field(kw_only=True)
    mapped: dict[Split, MappedArray] = field(kw_only=True)

    @cached_property
    def digest(self) -> str:
        """Return a SHA-256 of the tokens of both splits, as the index has it."""
        return self.index.digest

    def take(self, split: Split, starts: NDArray[np.int64], length: int) -> Ids:
        """Return `length` tokens from each of some places, (B, length), int64."""
        self.mapped[split].touch(len(starts), length)
        return super().take(split, starts, length)


def load_tokens(folder: Path, tokenizer: Tokenizer | None = None) -> TokenDataset:
    """Return the data set in a folder of tokens. The tokens themselves are not read.

    tokenizer: that of the model, which must be the one of the folder. Raises DataError.
    """
    index = read_index(folder)
    dtype = np.dtype(DTYPES[index.dtype])
    tokens = {split: MappedArray(folder / tokens_file(split), dtype, index.tokens[split]) for split in SPLITS}
    ends = {split: MappedArray(folder / ends_file(split), ENDS, index.documents[split]) for split in SPLITS}
    for split in SPLITS:
        last = int(ends[split].array[-1]) if index.documents[split] else 0
        if last != index.tokens[split]:
            raise DataError(
                f"{str(folder / ends_file(split))!r} is damaged: the last document ends at {last:,} of "
                f"{index.tokens[split]:,} tokens. Prepare the folder again"
            )
    if tokenizer is None:
        tokenizer = read_vocabulary(folder, index.vocabulary)
    elif fingerprint(tokenizer) != index.vocabulary:
        check_tokenizer(folder, index, tokenizer)
    return TokenDataset(
        tokenizer, tokens["train"].array, tokens["val"].array, {split: index.chars[split] for split in SPLITS},
        ends={split: ends[split].array for split in SPLITS}, index=index, mapped=tokens,
    )  # fmt: skip


def check_tokenizer(folder: Path, index: Index, tokenizer: Tokenizer) -> None:
    """Raise DataError unless a tokenizer has the bytes of the folder's own for each id."""
    own = read_vocabulary(folder, index.vocabulary)
    if not same_tokens(tokenizer, own):
        raise DataError(
            f"{str(folder)!r} has tokens of another tokenizer: expected {tokenizer.kind} with "
            f"{tokenizer.vocab_size:,} tokens, got {index.tokenizer} with {index.vocab_size:,}. Prepare the texts "
            "again with the tokenizer of the model: prepare --tokenizer MODEL"
        )
