"""Read and encode a unit of a file. These functions run in processes of their own, on values that can be sent there."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt.data import jsonl
from gpt.data.dataset import Split
from gpt.data.encoding import encode_pieces, separable_pieces
from gpt.data.preparation.cutting import Rule, Source, cut_file, read_unit
from gpt.data.text import DataError, TextFile, open_bytes, unix_lines
from gpt.data.vocabulary import read_vocabulary, token_dtype
from gpt.tokenizer import CharacterError, Tokenizer, TokenizerError
from gpt.tokenizer.pieces import smaller_pieces

PIECE = 2**20  # characters that are encoded at once


@dataclass(frozen=True)
class Survey:
    """What a unit contains: its characters, its documents, and which characters they are, if that was asked for."""

    chars: int
    documents: int
    characters: str


@dataclass(frozen=True)
class Job:
    """A part of a unit to encode.

    start, stop: the first character of a text and the one after the last; of JSON lines these are numbers of documents.
    chars_before: the characters of the file before this unit. begins, ends: whether the part begins and ends a
    document; a text is one. closes: whether the part ends a document in its split, as the training part of a text does.
    """

    source: Source
    unit: int
    split: Split
    start: int
    stop: int
    chars_before: int = 0
    begins: bool = False
    ends: bool = False
    closes: bool = False


@dataclass(frozen=True)
class Encoded:
    """The tokens of a part, as bytes of the dtype of the vocabulary, and the ends of documents in them, in tokens."""

    tokens: bytes
    ends: NDArray[np.int64]
    chars: int


def cut(given: tuple[Path, str, str], rule: Rule, unit: int) -> Source:
    """Return a file with the borders of its units; see `cut_file`. given: its path, its name and its field."""
    return cut_file(*given, rule, unit)


def survey(given: tuple[Source, int], with_characters: bool) -> Survey:
    """Return what a unit contains. Raises DataError, with the place in the file, for one that cannot be used."""
    source, number = given
    if source.field:
        texts = [text for _, text in unit_documents(source, number)]
    else:
        texts = [unit_text(source, number)]
    characters = "".join(sorted(set().union(*texts))) if with_characters else ""
    return Survey(sum(map(len, texts)), len(texts) if source.field else 0, characters)


def unit_text(source: Source, number: int) -> str:
    """Return the characters of a unit, with line feeds as line ends. Raises DataError."""
    content = read_unit(source, number)
    try:
        return unix_lines(content.decode())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source.name!r} is not UTF-8 text: byte 0x{content[error.start]:02x} at position "
            f"{source.borders[number] + error.start} ({error.reason}). Convert it to UTF-8, for example with iconv."
        ) from None


def unit_documents(source: Source, number: int) -> Iterator[tuple[int, str]]:
    """Yield the line in its unit, and the text, of each document. Raises DataError with the line in the file."""
    try:
        yield from jsonl.documents(unit_text(source, number), source.field)
    except jsonl.LineError as error:
        raise error.at(lines_before(source, number), source.name) from None


def lines_before(source: Source, number: int) -> int:
    """Return the number of lines before a unit. It reads the file, which an error alone needs."""
    with open_bytes(source.path) as file:
        return sum(file.read(stop - start).count(b"\n") for start, stop in spans(source.borders[: number + 1]))


def spans(borders: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the spans between borders, the first of which begins at 0."""
    return list(zip((0, *borders[:-1]), borders))


vocabulary = lru_cache(maxsize=1)(read_vocabulary)  # A process reads the tokenizer of a folder once.


def encode(job: Job, folder: Path, sha256: str) -> Encoded:
    """Return the tokens of a part of a unit. Raises DataError and TokenizerError, with the place in the file.

    folder, sha256: where the tokenizer is; see `read_vocabulary`.
    """
    return encode_job(job, vocabulary(folder, sha256))


def encode_job(job: Job, tokenizer: Tokenizer) -> Encoded:
    """Return the tokens of a part of a unit. Raises DataError and TokenizerError, with the place in the file."""
    return encode_documents(job, tokenizer) if job.source.field else encode_text(job, tokenizer)


def encode_text(job: Job, tokenizer: Tokenizer) -> Encoded:
    """Return the tokens of a part of a text."""
    text = unit_text(job.source, job.unit)[job.start : job.stop]
    dtype, position = token_dtype(tokenizer), job.chars_before + job.start
    ids = bytearray(first_token(tokenizer, dtype) if job.begins else b"")
    place = TextFile(job.source.path, job.source.name).place
    try:
        ids += encode_pieces(smaller_pieces([text], PIECE), tokenizer, dtype, position, place)
    except CharacterError as error:
        raise TokenizerError(str(error)) from None  # It can be sent to another process.
    ids += last_token(tokenizer, dtype) if job.ends else b""
    ends = [len(ids) // dtype.itemsize] if job.closes else []
    return Encoded(bytes(ids), np.array(ends, np.int64), len(text))


def encode_documents(job: Job, tokenizer: Tokenizer) -> Encoded:
    """Return the tokens of documents, each between the tokens that begin and end a text, where there are such."""
    dtype = token_dtype(tokenizer)
    first, last = first_token(tokenizer, dtype), last_token(tokenizer, dtype)
    ids, ends, chars = bytearray(), [], 0
    for place, (line, text) in enumerate(unit_documents(job.source, job.unit)):
        if job.start <= place < job.stop:
            try:
                content = encode_whole(tokenizer, text).astype(dtype).tobytes()
            except TokenizerError as error:
                lines = lines_before(job.source, job.unit)
                raise DataError(f"line {lines + line} of {job.source.name!r}: {error}") from None
            ids += first + content + last
            ends.append(len(ids) // dtype.itemsize)
            chars += len(text)
    return Encoded(bytes(ids), np.array(ends, np.int64), chars)


def encode_whole(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """Return the tokens of a text; a long one is encoded in pieces. Raises TokenizerError."""
    if len(text) <= PIECE:
        return tokenizer.encode(text)
    pieces = separable_pieces(smaller_pieces([text], PIECE), tokenizer)
    return np.concatenate([tokenizer.encode(piece) for piece in pieces])


def first_token(tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger]) -> bytes:
    """Return the token that begins a text, as bytes, if the model wants it."""
    has = tokenizer.add_bos and tokenizer.bos_id is not None
    return np.array([tokenizer.bos_id] if has else [], dtype).tobytes()


def last_token(tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger]) -> bytes:
    """Return the token that ends a text, as bytes, if there is one."""
    return np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], dtype).tobytes()
